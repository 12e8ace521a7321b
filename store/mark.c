#include "store/mark.h"

#include <inttypes.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/crc32c.h"

#define MARK_MAGIC UINT32_C(0x48464d01) /* "HFM", version 1 */

enum {
    OFFSET_MAGIC = 0,
    OFFSET_CRC = 4,
    OFFSET_DIRECTORY = 8,
    OFFSET_INCARNATION = 16,
    OFFSET_DURABLE_LSN = 24,
    OFFSET_NEWEST_LSN = 32,
    OFFSET_NEWEST_SEGMENT = 40,
    OFFSET_CORE = 44,
};

static uint32_t checksum(const uint8_t *block)
{
    return crc32c(0, block + OFFSET_DIRECTORY, JOURNAL_BLOCK_BYTES - OFFSET_DIRECTORY);
}

void mark_seal(uint8_t *block, const struct journal_identity *identity, const struct mark *mark)
{
    HF_ASSERT(mark->newest_lsn <= mark->durable_lsn);

    memset(block, 0, JOURNAL_BLOCK_BYTES);
    store_be32(block + OFFSET_MAGIC, MARK_MAGIC);
    store_be64(block + OFFSET_DIRECTORY, identity->directory_id);
    store_be64(block + OFFSET_INCARNATION, identity->incarnation);
    store_be64(block + OFFSET_DURABLE_LSN, mark->durable_lsn);
    store_be64(block + OFFSET_NEWEST_LSN, mark->newest_lsn);
    store_be32(block + OFFSET_NEWEST_SEGMENT, mark->newest_segment);
    store_be16(block + OFFSET_CORE, identity->core);
    store_be32(block + OFFSET_CRC, checksum(block));
}

/* A torn block is none: what it should have said, the one before it says nearly as well. */
static bool is_whole(const uint8_t *block)
{
    return ((load_be32(block + OFFSET_MAGIC) ^ MARK_MAGIC) & 0xffffff00U) == 0 &&
           load_be32(block + OFFSET_CRC) == checksum(block);
}

/* False: the block shouldn't be here at all. */
static bool belongs(const uint8_t *block, const struct journal_identity *identity,
                    struct hf_error *error)
{
    const uint64_t incarnation = load_be64(block + OFFSET_INCARNATION);

    if (load_be64(block + OFFSET_DIRECTORY) != identity->directory_id ||
        load_be16(block + OFFSET_CORE) != identity->core) {
        hf_error_set(error, EX_DATAERR, 0,
                     "its marks are of another data directory, or another core");
        return false;
    }
    if (load_be32(block + OFFSET_MAGIC) != MARK_MAGIC) {
        hf_error_set(error, EX_DATAERR, 0, "its marks were written by a newer version");
        return false;
    }
    if (incarnation > identity->incarnation + 1) {
        hf_error_set(error, EX_DATAERR, 0,
                     "its marks are of start %" PRIu64 ", but the manifest knows only %" PRIu64
                     " starts: it is an old copy",
                     incarnation, identity->incarnation);
        return false;
    }
    return true;
}

bool mark_load(const struct journal_source *source, uint32_t file,
               const struct journal_identity *identity, uint8_t *scratch, struct mark *mark,
               struct hf_error *error)
{
    bool found = false;

    if (!source->read(source->context, file, 0, scratch, MARK_FILE_BYTES)) {
        hf_error_set(error, EX_IOERR, 0, "its marks can't be read");
        return false;
    }
    *mark = (struct mark){ 0 };
    for (uint32_t i = 0; i < MARK_BLOCKS; i++) {
        const uint8_t *block = scratch + (size_t)i * JOURNAL_BLOCK_BYTES;
        const uint64_t durable_lsn = load_be64(block + OFFSET_DURABLE_LSN);

        if (!is_whole(block)) {
            continue;
        }
        if (!belongs(block, identity, error)) {
            return false;
        }
        if (load_be64(block + OFFSET_INCARNATION) != identity->incarnation ||
            (found && durable_lsn < mark->durable_lsn)) {
            continue;
        }
        /* Of two that know as much, the one that knows the newer segment. */
        const uint64_t newest_lsn = load_be64(block + OFFSET_NEWEST_LSN);

        if (!found || durable_lsn > mark->durable_lsn || newest_lsn >= mark->newest_lsn) {
            *mark =
                (struct mark){ durable_lsn, newest_lsn, load_be32(block + OFFSET_NEWEST_SEGMENT) };
            found = true;
        }
    }
    if (!found) {
        hf_error_set(error, EX_DATAERR, 0, "its marks are missing or damaged");
    }
    return found;
}
