#include "proto/frame.h"

enum frame_origin frame_type_origin(uint8_t type)
{
    switch (type) {
#define FRAME_TYPE_ORIGIN(name, number, origin, label)                                             \
    case number:                                                                                   \
        return origin;
        FRAME_TYPES(FRAME_TYPE_ORIGIN)
#undef FRAME_TYPE_ORIGIN
    default:
        return FRAME_FROM_NOBODY;
    }
}

const char *frame_type_name(uint8_t type)
{
    switch (type) {
#define FRAME_TYPE_NAME(name, number, origin, label)                                               \
    case number:                                                                                   \
        return #name;
        FRAME_TYPES(FRAME_TYPE_NAME)
#undef FRAME_TYPE_NAME
    default:
        return "OTHER";
    }
}

const char *frame_type_label(uint8_t type)
{
    switch (type) {
#define FRAME_TYPE_LABEL(name, number, origin, label)                                              \
    case number:                                                                                   \
        return label;
        FRAME_TYPES(FRAME_TYPE_LABEL)
#undef FRAME_TYPE_LABEL
    default:
        return "other";
    }
}
