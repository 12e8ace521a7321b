#include "tests/unit/store/memory_disk.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"

void memory_disk_init(struct memory_disk *disk, uint32_t segment_bytes, uint32_t segment_count)
{
    disk->bytes = calloc(segment_count + 1U, segment_bytes);
    disk->segment_bytes = segment_bytes;
    disk->segment_count = segment_count;
    disk->reads_until_failure = 0;
    HF_ASSERT(disk->bytes != NULL);
}

void memory_disk_deinit(struct memory_disk *disk)
{
    free(disk->bytes);
    disk->bytes = NULL;
}

static bool disk_read(void *context, uint32_t segment, uint64_t offset, uint8_t *to,
                      size_t byte_count)
{
    struct memory_disk *disk = context;

    HF_ASSERT(segment <= disk->segment_count && offset % JOURNAL_BLOCK_BYTES == 0 &&
              byte_count % JOURNAL_BLOCK_BYTES == 0);
    if (disk->reads_until_failure > 0 && --disk->reads_until_failure == 0) {
        return false;
    }
    memset(to, 0, byte_count);
    if (offset < disk->segment_bytes) {
        const size_t there = disk->segment_bytes - offset;
        memcpy(to, disk->bytes + (size_t)segment * disk->segment_bytes + offset,
               there < byte_count ? there : byte_count);
    }
    return true;
}

struct journal_source memory_disk_source(struct memory_disk *disk)
{
    return (struct journal_source){ disk, disk_read };
}

bool memory_disk_write(struct memory_disk *disk, struct journal *journal)
{
    struct journal_write write;

    if (!journal_next_write(journal, &write)) {
        return false;
    }
    HF_ASSERT(write.segment <= disk->segment_count);
    HF_ASSERT(write.offset + write.byte_count <= disk->segment_bytes);
    HF_ASSERT(write.offset % JOURNAL_BLOCK_BYTES == 0);
    HF_ASSERT((uintptr_t)write.bytes % JOURNAL_BLOCK_BYTES == 0);
    memcpy(disk->bytes + (size_t)write.segment * disk->segment_bytes + write.offset, write.bytes,
           write.byte_count);
    journal_on_written(journal, write.byte_count);
    return true;
}

void memory_disk_write_all(struct memory_disk *disk, struct journal *journal)
{
    while (memory_disk_write(disk, journal)) {
    }
}

uint64_t random_next(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return id_mix(*state);
}

static const uint8_t *body_of(uint64_t id, uint16_t body_bytes)
{
    static uint8_t body[4][RECORD_BODY_BYTES_MAX]; /* a few may be in use at once */
    static unsigned turn;
    uint8_t *bytes = body[turn++ % 4];

    for (uint16_t i = 0; i < body_bytes; i++) {
        bytes[i] = (uint8_t)(id_mix(id + i / 8U) >> (8 * (i % 8U)));
    }
    return bytes;
}

struct record message_record(uint64_t user, uint64_t peer, uint64_t seq, uint64_t n,
                             uint16_t body_bytes)
{
    const struct partition_id from = partition_of(peer);
    const uint64_t id = (seq + 1000) << (PARTITION_BITS + MESSAGE_COUNT_BITS) |
                        (uint64_t)from.value << MESSAGE_COUNT_BITS;

    return (struct record){
        .type = RECORD_ENTRY,
        .partition = partition_of(user),
        .entry = {
            .user = { user },
            .epoch = 1700000000,
            .seq = seq,
            .id = { id },
            .conversation = { peer },
            .sender = { peer },
            .form = LOG_ENTRY_MESSAGE,
            .kind = 1,
            .prev = seq - 1,
            .n = n,
            .cn = n,
            .origin = { 1700000001, seq * 2 },
            .body = body_of(id, body_bytes),
            .body_bytes = body_bytes,
        },
    };
}

struct record own_record(uint64_t user, uint64_t peer, uint64_t seq, uint64_t n, uint32_t device,
                         uint64_t counter, uint16_t body_bytes)
{
    struct record record = message_record(user, peer, seq, n, 0);
    struct log_entry *entry = &record.entry;

    entry->id.value = (seq + 1000) << (PARTITION_BITS + MESSAGE_COUNT_BITS) |
                      (uint64_t)record.partition.value << MESSAGE_COUNT_BITS;
    entry->sender.value = user;
    entry->flags = LOG_ENTRY_FLAG_OWN;
    entry->device.value = device;
    entry->counter = counter;
    memset(entry->nonce, (int)(counter & 0xff), RECORD_NONCE_BYTES);
    entry->cn = 0;
    entry->origin = (struct origin){ entry->epoch, entry->seq };
    entry->body = body_of(entry->id.value, body_bytes);
    entry->body_bytes = body_bytes;
    return record;
}
