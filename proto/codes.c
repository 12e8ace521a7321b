#include "proto/codes.h"

const char *code_name(uint16_t code)
{
    switch (code) {
    case CODE_OK:
        return "OK";
#define CODE_NAME(name, number, label, text)                                                       \
    case number:                                                                                   \
        return #name;
        CODES(CODE_NAME)
#undef CODE_NAME
    default:
        return "OTHER";
    }
}

const char *code_label(uint16_t code)
{
    switch (code) {
    case CODE_OK:
        return "ok";
#define CODE_LABEL(name, number, label, text)                                                      \
    case number:                                                                                   \
        return label;
        CODES(CODE_LABEL)
#undef CODE_LABEL
    default:
        return "other";
    }
}

const char *code_text(uint16_t code)
{
    switch (code) {
    case CODE_OK:
        return "no error";
#define CODE_TEXT(name, number, label, text)                                                       \
    case number:                                                                                   \
        return text;
        CODES(CODE_TEXT)
#undef CODE_TEXT
    default:
        return "an error that this version doesn't know";
    }
}
