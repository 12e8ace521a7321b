#include "core/engine/recent.h"

#include <stdlib.h>
#include <string.h>

bool recent_open(struct recent *recent, size_t size)
{
    HF_ASSERT(size >= RECENT_BYTES_MIN && (size & (size - 1)) == 0);
    /* Begins in the second lap, so that no place is 0. */
    *recent = (struct recent){ .size = size, .end = size };
    recent->bytes = malloc(size);
    return recent->bytes != NULL;
}

void recent_close(struct recent *recent)
{
    free(recent->bytes);
    recent->bytes = NULL;
}

uint64_t recent_add(struct recent *recent, uint64_t before, uint32_t user, uint64_t seq,
                    const uint8_t *record, size_t record_bytes)
{
    const uint64_t item_bytes = (sizeof(struct recent_item) + record_bytes + 7) & ~(uint64_t)7;
    const uint64_t left = recent->size - (recent->end & (recent->size - 1));

    HF_ASSERT(item_bytes <= recent->size / 2);
    if (left < item_bytes) {
        recent->end += left; /* an item doesn't go over the edge */
    }
    const uint64_t at = recent->end;

    recent->end += item_bytes;

    struct recent_item *previous = recent_get(recent, before);
    struct recent_item *item = recent_get(recent, at);

    if (previous != NULL) {
        HF_ASSERT_SLOW(previous->user == user && previous->seq + 1 == seq);
        previous->after = at;
    }
    *item = (struct recent_item){
        .before = before, .seq = seq, .record_bytes = (uint32_t)record_bytes, .user = user
    };
    memcpy(item->record, record, record_bytes);
    return at;
}
