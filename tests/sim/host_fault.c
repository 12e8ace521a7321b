#include "tests/sim/host_fault.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "store/recover.h"
#include "tests/sim/fail.h"

/* ---- Journals ---- */

/* A place in a journal. */
struct spot {
    uint32_t segment;
    uint64_t offset;
    uint64_t batch_lsn;
};

static bool read_block(struct host *host, uint16_t core, uint32_t segment, uint64_t offset,
                       struct journal_block *block)
{
    const struct disk *disk = host->disk;

    return journal_block_check(disk->set.segments[core][segment] + offset,
                               recover_block_id(disk->manifest.directory_id), core,
                               block) == JOURNAL_BLOCK_OK &&
           block->incarnation == disk->manifest.incarnation;
}

/* A sound block of this start's journal, any of them; `before`: of a batch before that LSN. */
static bool draw_block(struct host *host, uint16_t core, uint64_t before, struct spot *spot)
{
    const struct disk_set *set = &host->disk->set;
    uint32_t found = 0;

    for (uint32_t s = 0; s < set->segment_count; s++) {
        for (uint64_t offset = 0; offset < set->segment_bytes; offset += JOURNAL_BLOCK_BYTES) {
            struct journal_block block;

            if (read_block(host, core, s, offset, &block) && block.batch_lsn < before &&
                prng_below(host->prng, ++found) == 0) {
                *spot = (struct spot){ s, offset, block.batch_lsn };
            }
        }
    }
    return found > 0;
}

/* That of the newest batch of which anything can be told; 0: none. */
static struct spot find_last(struct host *host, uint16_t core)
{
    const struct disk_set *set = &host->disk->set;
    struct spot last = { 0 };

    for (uint32_t s = 0; s < set->segment_count; s++) {
        for (uint64_t offset = 0; offset < set->segment_bytes; offset += JOURNAL_BLOCK_BYTES) {
            struct journal_block block;

            if (read_block(host, core, s, offset, &block) && block.batch_lsn > last.batch_lsn) {
                last = (struct spot){ s, offset, block.batch_lsn };
            }
        }
    }
    return last;
}

static uint8_t *harm_place(struct host *host, const struct harm *harm)
{
    return host->disk->set.segments[harm->core][harm->segment] + harm->offset;
}

/* Keeps what stands there. */
static uint8_t *begin_harm(struct host *host, struct harm *harm, const struct spot *spot,
                           size_t byte_count)
{
    harm->segment = spot->segment;
    harm->offset = spot->offset;
    harm->byte_count = byte_count;
    harm->before = malloc(byte_count);
    SIM_CHECK(harm->before != NULL, "out of memory");
    memcpy(harm->before, harm_place(host, harm), byte_count);
    return harm_place(host, harm);
}

static bool harm_journal(struct host *host, struct harm *harm)
{
    const struct spot last = find_last(host, harm->core);
    const bool any = harm->kind == HARM_NEWER;
    struct spot spot;

    if (!draw_block(host, harm->core, any ? UINT64_MAX : last.batch_lsn, &spot)) {
        return false;
    }
    if (harm->kind == HARM_SEGMENT) {
        spot.offset = 0;
        if (spot.segment == last.segment) {
            return false;
        }
        memset(begin_harm(host, harm, &spot, host->disk->set.segment_bytes), 0,
               host->disk->set.segment_bytes);
        return true;
    }

    uint8_t *at = begin_harm(host, harm, &spot, JOURNAL_BLOCK_BYTES);

    if (harm->kind == HARM_BIT) {
        at[prng_below(host->prng, JOURNAL_BLOCK_BYTES)] ^=
            (uint8_t)(1U << prng_below(host->prng, 8));
    } else if (harm->kind == HARM_NEWER) {
        at[3]++; /* the version, behind the magic number */
    } else {
        memset(at, 0, JOURNAL_BLOCK_BYTES);
    }
    return true;
}

static bool harm_foreign(struct host *host, struct harm *harm)
{
    const uint16_t cores = host->disk->manifest.core_count;
    const uint16_t other = (uint16_t)((harm->core + 1) % cores);
    const struct disk_set *set = &host->disk->set;
    struct spot from;
    struct spot to = { 0 };

    if (other == harm->core || !draw_block(host, other, UINT64_MAX, &from)) {
        return false;
    }
    to.segment = (uint32_t)prng_below(host->prng, set->segment_count);
    memcpy(begin_harm(host, harm, &to, JOURNAL_BLOCK_BYTES),
           set->segments[other][from.segment] + from.offset, JOURNAL_BLOCK_BYTES);
    return true;
}

/* ---- Volumes and the manifest ---- */

static void put_meta(struct volume *volume, const struct schema_key *key,
                     const struct schema_row *row)
{
    struct volume_txn *txn;

    SIM_CHECK(volume_write_begin(volume, 1, row->byte_count, &txn) == VOLUME_OK &&
                  volume_put(txn, VOLUME_META, schema_key_bytes(key), schema_row_bytes(row)) ==
                      VOLUME_OK &&
                  volume_commit(txn) == VOLUME_OK && volume_sync(volume) == VOLUME_OK,
              "a row of `meta` can't be put");
}

static bool get_meta(struct volume *volume, const struct schema_key *key, struct schema_row *row)
{
    struct hf_error error = { 0 };
    struct volume_txn *reader = volume_reader_open(volume, &error);
    struct volume_bytes bytes;
    bool found;

    SIM_CHECK(reader != NULL && volume_read_begin(reader) == VOLUME_OK, "no reader");
    found = volume_get(reader, VOLUME_META, schema_key_bytes(key), &bytes) == VOLUME_OK;
    if (found) {
        row->byte_count = bytes.byte_count;
        memcpy(row->bytes, bytes.bytes, bytes.byte_count);
    }
    volume_read_end(reader);
    volume_reader_close(reader);
    return found;
}

static bool harm_identity(struct host *host, struct harm *harm)
{
    struct volume *volume = host->disk->volumes[harm->volume];
    struct schema_identity identity;
    struct schema_row row;

    harm->key = schema_key_identity();
    if (!get_meta(volume, &harm->key, &harm->row) ||
        !schema_decode_identity(schema_key_bytes(&harm->key), schema_row_bytes(&harm->row),
                                &identity)) {
        return false;
    }
    if (harm->kind == HARM_NEWER_VOLUME) {
        identity.format++;
    } else {
        identity.directory_id[0]++;
    }
    schema_encode_identity(&harm->key, &identity, &row);
    put_meta(volume, &harm->key, &row);
    return true;
}

static bool harm_meta(struct host *host, struct harm *harm)
{
    struct volume *volume = host->disk->volumes[harm->volume];
    struct schema_row row;

    harm->key = prng_chance(host->prng, 500) ? schema_key_identity() : schema_key_applied();
    if (!get_meta(volume, &harm->key, &harm->row)) {
        return false;
    }
    row = harm->row;
    row.bytes[prng_below(host->prng, row.byte_count)] ^= (uint8_t)(1U << prng_below(host->prng, 8));
    put_meta(volume, &harm->key, &row);
    return true;
}

static void swap_volumes(struct disk *disk, const struct harm *harm)
{
    struct volume *first = disk->volumes[harm->volume];

    disk->volumes[harm->volume] = disk->volumes[harm->other_volume];
    disk->volumes[harm->other_volume] = first;
}

/* ---- All of it ---- */

bool harm_do(struct host *host, struct harm *harm)
{
    struct disk *disk = host->disk;
    struct spot spot;

    *harm = (struct harm){ .kind = HARM_NONE };
    if (disk->manifest.core_count == 0) {
        return false; /* it has never been started */
    }
    harm->kind = (enum harm_kind)prng_between(host->prng, HARM_NONE + 1, HARM_KINDS - 1);
    harm->core = (uint16_t)prng_below(host->prng, disk->manifest.core_count);
    harm->volume = (uint16_t)prng_below(host->prng, disk->manifest.volume_count);
    harm->other_volume = (uint16_t)((harm->volume + 1) % disk->manifest.volume_count);
    switch (harm->kind) {
    case HARM_BIT:
    case HARM_ZEROS:
    case HARM_SEGMENT:
    case HARM_NEWER:
        return harm_journal(host, harm);
    case HARM_FOREIGN:
        return harm_foreign(host, harm);
    case HARM_OLD_MANIFEST:
        if (!draw_block(host, harm->core, UINT64_MAX, &spot)) {
            return false;
        }
        disk->manifest.incarnation--;
        disk_put_manifest(disk);
        return true;
    case HARM_MANIFEST:
        harm->offset = prng_below(host->prng, disk->manifest_bytes);
        disk->manifest_text[harm->offset] =
            (char)(disk->manifest_text[harm->offset] ^ (1 << prng_below(host->prng, 7)));
        return true;
    case HARM_SWAPPED_VOLUMES:
        swap_volumes(disk, harm);
        return true;
    case HARM_NEWER_VOLUME:
    case HARM_OTHER_DIRECTORY:
        return harm_identity(host, harm);
    case HARM_META:
        return harm_meta(host, harm);
    case HARM_NONE:
    case HARM_KINDS:
        break;
    }
    return false;
}

void harm_undo(struct host *host, struct harm *harm)
{
    switch (harm->kind) {
    case HARM_BIT:
    case HARM_ZEROS:
    case HARM_SEGMENT:
    case HARM_NEWER:
    case HARM_FOREIGN:
        memcpy(harm_place(host, harm), harm->before, harm->byte_count);
        break;
    case HARM_OLD_MANIFEST:
        host->disk->manifest.incarnation++;
        disk_put_manifest(host->disk);
        break;
    case HARM_MANIFEST:
        disk_put_manifest(host->disk);
        break;
    case HARM_SWAPPED_VOLUMES:
        swap_volumes(host->disk, harm);
        break;
    case HARM_NEWER_VOLUME:
    case HARM_OTHER_DIRECTORY:
    case HARM_META:
        put_meta(host->disk->volumes[harm->volume], &harm->key, &harm->row);
        break;
    case HARM_NONE:
    case HARM_KINDS:
        break;
    }
    free(harm->before);
    harm->before = NULL;
}

bool harm_is_certain(const struct harm *harm)
{
    return harm->kind != HARM_BIT && harm->kind != HARM_ZEROS && harm->kind != HARM_SEGMENT;
}
