#include "tests/sim/disk.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "store/mark.h"
#include "store/recover.h"
#include "tests/sim/fail.h"
#include "tests/sim/volume_map.h"

void disk_open(struct disk *disk, struct hazards *hazards, struct prng *prng, uint16_t volume_count)
{
    *disk = (struct disk){ .hazards = hazards, .prng = prng };
    for (int i = 0; i < SCHEMA_DIRECTORY_ID_BYTES; i++) {
        disk->manifest.directory_id[i] = (uint8_t)prng_next(prng);
    }
    disk->manifest.volume_count = volume_count;
    for (uint16_t i = 0; i < volume_count; i++) {
        disk->volumes[i] = volume_map_open();
    }
}

static uint32_t bytes_of(const struct disk_set *set, uint32_t segment)
{
    return segment == set->segment_count ? MARK_FILE_BYTES : set->segment_bytes;
}

static void free_segments(struct disk_set *set)
{
    for (uint16_t core = 0; core < set->core_count; core++) {
        for (uint32_t i = 0; i <= set->segment_count; i++) {
            free(set->segments[core][i]);
            set->segments[core][i] = NULL;
        }
    }
    set->core_count = 0;
}

void disk_close(struct disk *disk)
{
    for (uint16_t i = 0; i < disk->manifest.volume_count; i++) {
        volume_close(disk->volumes[i]);
    }
    free_segments(&disk->set);
}

void disk_make_segments(struct disk *disk, uint16_t core_count, uint32_t segment_count,
                        uint32_t segment_bytes)
{
    struct disk_set *set = &disk->set;

    HF_ASSERT(core_count <= DISK_CORES_MAX && segment_count <= DISK_SEGMENTS_MAX);
    if (set->core_count == core_count && set->segment_count == segment_count &&
        set->segment_bytes == segment_bytes) {
        return;
    }
    free_segments(set);
    *set = (struct disk_set){
        .core_count = core_count,
        .segment_count = segment_count,
        .segment_bytes = segment_bytes,
    };
    for (uint16_t core = 0; core < core_count; core++) {
        for (uint32_t i = 0; i <= segment_count; i++) {
            set->segments[core][i] = calloc(1, bytes_of(set, i));
            SIM_CHECK(set->segments[core][i] != NULL, "out of memory");
        }
    }
}

void disk_write_start_marks(struct disk *disk)
{
    const struct manifest *manifest = &disk->manifest;
    const struct mark mark = { manifest->start_lsn, manifest->start_lsn, 0 };

    for (uint16_t core = 0; core < manifest->core_count; core++) {
        const struct journal_identity identity = { recover_block_id(manifest->directory_id),
                                                   manifest->incarnation, core };

        mark_seal(disk->set.segments[core][disk->set.segment_count] +
                      (size_t)mark_start_block(manifest->incarnation) * JOURNAL_BLOCK_BYTES,
                  &identity, &mark);
    }
}

/* Who reads what is just being written sees any of its sectors old or new. */
static void see_under_way(const struct disk_core *core, uint32_t segment, uint64_t offset,
                          uint8_t *to, size_t byte_count)
{
    const struct disk_write *write = &core->disk->writes[core->core];

    if (!write->active || write->segment != segment) {
        return;
    }
    for (size_t i = 0; i < byte_count; i += DISK_SECTOR_BYTES) {
        const uint64_t place = offset + i;

        if (place >= write->offset && place < write->offset + write->byte_count &&
            prng_chance(core->disk->prng, 500)) {
            memcpy(to + i, write->bytes + (place - write->offset), DISK_SECTOR_BYTES);
            core->disk->hazards->counts[HAZARD_READ_UNDER_WAY]++;
        }
    }
}

static bool read_segment(void *context, uint32_t segment, uint64_t offset, uint8_t *to,
                         size_t byte_count)
{
    const struct disk_core *core = context;
    const struct disk_set *set = &core->disk->set;

    HF_ASSERT(core->core < set->core_count && segment <= set->segment_count);
    HF_ASSERT(offset % JOURNAL_BLOCK_BYTES == 0 && byte_count % JOURNAL_BLOCK_BYTES == 0);
    for (size_t i = 0; i < byte_count; i += JOURNAL_BLOCK_BYTES) {
        if (offset + i < bytes_of(set, segment)) {
            memcpy(to + i, set->segments[core->core][segment] + offset + i, JOURNAL_BLOCK_BYTES);
        } else {
            memset(to + i, 0, JOURNAL_BLOCK_BYTES);
        }
    }
    see_under_way(core, segment, offset, to, byte_count);
    if (core->disk->rot == 0 || !prng_chance(core->disk->prng, core->disk->rot)) {
        return true;
    }
    if (!core->disk->rot_blocks || prng_chance(core->disk->prng, 500)) {
        return false;
    }
    to[prng_below(core->disk->prng, byte_count)] ^=
        (uint8_t)(1U << prng_below(core->disk->prng, 8));
    return true;
}

struct journal_source disk_source(struct disk_core *core)
{
    return (struct journal_source){ .context = core, .read = read_segment };
}

void disk_submit(struct disk *disk, uint16_t core, const struct journal_write *write)
{
    HF_ASSERT(!disk->writes[core].active);
    HF_ASSERT(write->offset % JOURNAL_BLOCK_BYTES == 0 &&
              write->byte_count % JOURNAL_BLOCK_BYTES == 0 && write->byte_count > 0);
    HF_ASSERT((uintptr_t)write->bytes % JOURNAL_BLOCK_BYTES == 0);
    HF_ASSERT(write->segment <= disk->set.segment_count &&
              write->offset + write->byte_count <= bytes_of(&disk->set, write->segment));
    disk->writes[core] = (struct disk_write){
        .active = true,
        .segment = write->segment,
        .offset = write->offset,
        .bytes = write->bytes,
        .byte_count = write->byte_count,
    };
}

void disk_complete(struct disk *disk, uint16_t core, size_t byte_count)
{
    struct disk_write *write = &disk->writes[core];

    HF_ASSERT(write->active && byte_count <= write->byte_count);
    memcpy(disk->set.segments[core][write->segment] + write->offset, write->bytes, byte_count);
    write->active = false;
}

/* How the sectors of a write under way fare: one of these for each write. */
enum tear {
    TEAR_ALL_LOST,
    TEAR_ALL_KEPT,
    TEAR_FIRST_KEPT, /* in order, up to somewhere */
    TEAR_LAST_KEPT,  /* the other way round */
    TEAR_MIXED,
    TEAR_KINDS,
};

static void tear_sector(struct disk *disk, uint8_t *at, const uint8_t *bytes)
{
    const size_t from = prng_below(disk->prng, DISK_SECTOR_BYTES);
    const size_t to = from + 1 + prng_below(disk->prng, DISK_SECTOR_BYTES - from);

    memcpy(at + from, bytes + from, to - from);
    disk->hazards->counts[HAZARD_SECTORS_TORN]++;
}

static void tear_write(struct disk *disk, uint16_t core)
{
    struct disk_write *write = &disk->writes[core];
    uint8_t *at = disk->set.segments[core][write->segment] + write->offset;
    const enum tear tear = (enum tear)prng_below(disk->prng, TEAR_KINDS);
    const size_t sectors = write->byte_count / DISK_SECTOR_BYTES;
    const size_t limit = prng_below(disk->prng, sectors + 1);

    disk->hazards->counts[HAZARD_CRASH_WRITE]++;
    for (size_t i = 0; i < sectors; i++) {
        const size_t place = i * DISK_SECTOR_BYTES;
        const bool kept = tear == TEAR_ALL_KEPT || (tear == TEAR_FIRST_KEPT && i < limit) ||
                          (tear == TEAR_LAST_KEPT && i >= limit) ||
                          (tear == TEAR_MIXED && prng_chance(disk->prng, 500));

        if (tear == TEAR_MIXED && prng_chance(disk->prng, 100)) {
            tear_sector(disk, at + place, write->bytes + place);
        } else if (kept) {
            memcpy(at + place, write->bytes + place, DISK_SECTOR_BYTES);
            disk->hazards->counts[HAZARD_SECTORS_KEPT]++;
        } else {
            disk->hazards->counts[HAZARD_SECTORS_LOST]++;
        }
    }
}

void disk_tear_writes(struct disk *disk)
{
    for (uint16_t core = 0; core < disk->set.core_count; core++) {
        if (disk->writes[core].active) {
            tear_write(disk, core);
            disk->writes[core].active = false;
        }
    }
}

void disk_crash(struct disk *disk, bool power)
{
    for (uint16_t i = 0; i < disk->manifest.volume_count; i++) {
        if (power) {
            disk->hazards->counts[HAZARD_COMMITS_LOST] +=
                volume_map_crash(disk->volumes[i], disk->prng);
        } else {
            volume_map_kill(disk->volumes[i]);
        }
    }
}

void disk_set_rot(struct disk *disk, uint32_t per_mille, bool blocks)
{
    disk->rot = per_mille;
    disk->rot_blocks = blocks;
    for (uint16_t i = 0; i < disk->manifest.volume_count; i++) {
        volume_map_set_rot(disk->volumes[i], per_mille > 0 ? disk->prng : NULL, per_mille);
    }
}

/* ---- The manifest ---- */

void disk_put_manifest(struct disk *disk)
{
    disk->manifest_bytes = manifest_encode(&disk->manifest, disk->manifest_text);
}

bool disk_get_manifest(struct disk *disk, struct hf_error *error)
{
    struct manifest manifest;
    char again[MANIFEST_BYTES_MAX];

    if (disk->manifest_bytes == 0) {
        return true;
    }
    if (!manifest_decode(disk->manifest_text, disk->manifest_bytes, &manifest, error)) {
        return false;
    }
    SIM_CHECK(manifest_encode(&manifest, again) == disk->manifest_bytes &&
                  memcmp(again, disk->manifest_text, disk->manifest_bytes) == 0,
              "the manifest reads otherwise than it was written");
    disk->manifest = manifest;
    return true;
}
