#include "core/engine/pending.h"

#include <stdlib.h>

bool pendings_open(struct pendings *pendings, uint32_t max)
{
    uint32_t size = 16;

    HF_ASSERT(max > 0 && max <= UINT32_C(1) << 30);
    while (size < max) {
        size *= 2;
    }
    *pendings = (struct pendings){ .max = max, .mask = size - 1 };
    pendings->items = calloc(size, sizeof *pendings->items);
    return pendings->items != NULL;
}

void pendings_close(struct pendings *pendings)
{
    free(pendings->items);
    pendings->items = NULL;
}
