/*
 * Whatever a decoder lets through is a message that an encoder can write, in no more bytes, and
 * that then reads the same. The input is a stream of frames; unknown types are passed over.
 */
#include <string.h>

#include "core/base/check.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/proto/any_message.h"

#define DESCRIBED_BYTES_MAX 1000 /* longer ones make text for too long */

static void check_same_text(const struct any_message *one, const struct any_message *other)
{
    static char one_text[65536];
    static char other_text[65536];

    any_describe(one, one_text, sizeof one_text);
    any_describe(other, other_text, sizeof other_text);
    HF_ASSERT(strcmp(one_text, other_text) == 0);
}

static void check_frame(const struct frame_view *view)
{
    static uint8_t first[FRAME_BYTES_MAX];
    static uint8_t second[FRAME_BYTES_MAX];
    struct frame_view again_view;
    struct any_message message;
    struct any_message again;
    const enum code code = any_decode(view, &message);

    if (code != CODE_OK) {
        HF_ASSERT(code_is_fatal((uint16_t)code));
        return;
    }

    const size_t first_bytes = any_encode(first, sizeof first, &message);

    /* A page of more entries than we ever write can be read, not written. */
    if (first_bytes == 0) {
        HF_ASSERT(view->type == FRAME_TYPE_PAGE && message.page.count > PAGE_ENTRIES_MAX);
        return;
    }
    HF_ASSERT(first_bytes <= frame_bytes(view));
    HF_ASSERT(frame_parse(first, first_bytes, &again_view) == FRAME_OK);
    HF_ASSERT(frame_bytes(&again_view) == first_bytes);
    HF_ASSERT(any_decode(&again_view, &again) == CODE_OK);
    HF_ASSERT(any_encode(second, sizeof second, &again) == first_bytes);
    HF_ASSERT(memcmp(first, second, first_bytes) == 0);
    if (first_bytes <= DESCRIBED_BYTES_MAX) {
        check_same_text(&message, &again);
    }
}

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    struct frame_view view;

    while (frame_parse(bytes, byte_count, &view) == FRAME_OK) {
        if (frame_type_origin(view.type) != FRAME_FROM_NOBODY) {
            check_frame(&view);
        }
        bytes += frame_bytes(&view);
        byte_count -= frame_bytes(&view);
    }
}
