#include "core/io/slab.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>

#include "core/base/error.h"
#include "core/io/poison.h"

static size_t slab_objects_bytes(const struct slab *slab)
{
    return (size_t)slab->capacity * slab->object_bytes;
}

static size_t slab_heads_bytes(const struct slab *slab)
{
    return (size_t)slab->capacity * sizeof *slab->heads_;
}

/* Address space that costs nothing until touched. NORESERVE: `capacity` is a bound, not a plan. */
static void *slab_map(size_t byte_count, uint32_t flags)
{
    void *bytes = mmap(NULL, byte_count, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (bytes == MAP_FAILED) {
        return NULL;
    }
    if ((flags & SLAB_HUGE) != 0) {
        (void)madvise(bytes, byte_count, MADV_HUGEPAGE); /* a hint; kernels without it do well */
    }
    if ((flags & SLAB_TOUCH) != 0 && madvise(bytes, byte_count, MADV_POPULATE_WRITE) != 0) {
        const int reason = errno;
        (void)munmap(bytes, byte_count);
        errno = reason;
        return NULL;
    }
    return bytes;
}

bool slab_open(struct slab *slab, size_t object_bytes, uint32_t capacity, uint32_t flags,
               struct hf_error *error)
{
    HF_ASSERT(object_bytes > 0 && object_bytes % 8 == 0 && object_bytes <= UINT32_MAX);
    HF_ASSERT(capacity > 0 && capacity <= UINT32_C(1) << 31);

    *slab = (struct slab){
        .object_bytes = (uint32_t)object_bytes,
        .capacity = capacity,
        .free_ = SLAB_NONE,
        .flags_ = flags,
    };
    slab->objects_ = slab_map(slab_objects_bytes(slab), flags);
    if (slab->objects_ != NULL) {
        slab->heads_ = slab_map(slab_heads_bytes(slab), flags);
    }
    if (slab->heads_ == NULL) {
        hf_error_set(error, EX_OSERR, errno, "memory for %u objects of %zu bytes", capacity,
                     object_bytes);
        slab_close(slab);
        return false;
    }
    POISON(slab->objects_, slab_objects_bytes(slab));
    return true;
}

void slab_close(struct slab *slab)
{
    if (slab->objects_ != NULL) {
        UNPOISON(slab->objects_, slab_objects_bytes(slab)); /* the next mapping may lie there */
        (void)munmap(slab->objects_, slab_objects_bytes(slab));
    }
    if (slab->heads_ != NULL) {
        (void)munmap(slab->heads_, slab_heads_bytes(slab));
    }
    *slab = (struct slab){ 0 };
}

uint32_t slab_take(struct slab *slab)
{
    uint32_t slot = slab->free_;
    uint8_t *object;

    if (slot == SLAB_NONE) {
        if (slab->fresh_ == slab->capacity) {
            return SLAB_NONE;
        }
        slot = slab->fresh_++;
        slab->heads_[slot] = SLAB_ALIVE_BIT | 1;
        /* Its bytes are zero already, and untouched: a large object needn't be committed whole. */
        UNPOISON(slab->objects_ + (size_t)slot * slab->object_bytes, slab->object_bytes);
    } else {
        object = slab->objects_ + (size_t)slot * slab->object_bytes;
        UNPOISON(object, slab->object_bytes);
        memcpy(&slab->free_, object, sizeof slab->free_);
        HF_ASSERT((slab->heads_[slot] & SLAB_ALIVE_BIT) == 0);
        slab->heads_[slot] |= SLAB_ALIVE_BIT;
        if ((slab->flags_ & SLAB_DIRTY) == 0) {
            memset(object, 0, slab->object_bytes);
        }
    }
    slab->in_use++;
    if (slab->in_use > slab->in_use_max) {
        slab->in_use_max = slab->in_use;
    }
    return slot;
}

void slab_give(struct slab *slab, uint32_t slot)
{
    HF_ASSERT(slab_alive(slab, slot));

    uint8_t *object = slab->objects_ + (size_t)slot * slab->object_bytes;
    uint32_t generation = (slab->heads_[slot] + 1) & SLAB_GENERATION_MASK;

    if (generation == 0) {
        generation = 1; /* 0 is what a tag without a slot has */
    }
    slab->heads_[slot] = generation;
    memcpy(object, &slab->free_, sizeof slab->free_);
    POISON(object, slab->object_bytes);
    slab->free_ = slot;
    slab->in_use--;
}
