/*
 * A stream is cut into the same frames however its bytes arrive: at once, or a few at a time.
 */
#include "core/base/check.h"
#include "proto/frame.h"
#include "tests/fuzz/fuzz.h"

/* The next frame when only `visible` bytes are there. */
static enum frame_result parse_visible(const uint8_t *bytes, size_t visible,
                                       const struct frame_view *whole, enum frame_result wanted)
{
    struct frame_view view;
    const enum frame_result result = frame_parse(bytes, visible, &view);

    if (result == FRAME_OK) {
        HF_ASSERT(wanted == FRAME_OK);
        HF_ASSERT(view.type == whole->type && view.payload == whole->payload);
        HF_ASSERT(view.payload_bytes == whole->payload_bytes && frame_bytes(&view) <= visible);
    }
    if (result == FRAME_TOO_LARGE) {
        HF_ASSERT(wanted == FRAME_TOO_LARGE);
    }
    if (result == FRAME_NEED_MORE) {
        HF_ASSERT(view.payload == NULL && frame_bytes(&view) <= FRAME_BYTES_MAX);
        HF_ASSERT(visible < FRAME_HEADER_BYTES || frame_bytes(&view) > visible);
    }
    return result;
}

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    size_t at = 0;

    for (;;) {
        struct frame_view whole;
        const enum frame_result result = frame_parse(bytes + at, byte_count - at, &whole);
        size_t visible = 0;

        /* Steps taken from the bytes themselves; the last look sees all of them. */
        while (visible < byte_count - at) {
            if (parse_visible(bytes + at, visible, &whole, result) != FRAME_NEED_MORE) {
                break;
            }
            visible += 1U + bytes[at + visible] % 61U;
        }
        HF_ASSERT(parse_visible(bytes + at, byte_count - at, &whole, result) == result);
        if (result != FRAME_OK) {
            return;
        }
        at += frame_bytes(&whole);
    }
}
