#include "tests/unit/store/scratch_volumes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/check.h"
#include "store/volume_lmdb.h"

static void open_one(struct scratch_volumes *scratch, uint16_t v)
{
    const struct volume_options options = { .map_bytes = 1 << 28,
                                            .reserve_bytes = 1,
                                            .create = true };
    struct hf_error error = { 0 };
    char path[96];

    snprintf(path, sizeof path, "%s/%u", scratch->path, v);
    scratch->volumes[v] = volume_open(path, &options, &error);
    if (scratch->volumes[v] == NULL) {
        fprintf(stderr, "%s\n", error.text);
        HF_ASSERT(scratch->volumes[v] != NULL);
    }
}

void scratch_volumes_open(struct scratch_volumes *scratch, uint16_t count)
{
    memset(scratch, 0, sizeof *scratch);
    scratch->count = count;
    snprintf(scratch->path, sizeof scratch->path, "%s/holdfast-test-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    HF_ASSERT(mkdtemp(scratch->path) != NULL);
    for (uint16_t v = 0; v < count; v++) {
        open_one(scratch, v);
    }
}

void scratch_volumes_reopen(struct scratch_volumes *scratch)
{
    for (uint16_t v = 0; v < scratch->count; v++) {
        volume_close(scratch->volumes[v]);
        open_one(scratch, v);
    }
}

void scratch_volumes_empty(struct scratch_volumes *scratch)
{
    static const uint8_t first[1] = { 0 };
    static const uint8_t last[32] = {
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    };

    for (uint16_t v = 0; v < scratch->count; v++) {
        struct volume_txn *txn;

        HF_ASSERT(volume_write_begin(scratch->volumes[v], 0, 0, &txn) == VOLUME_OK);
        for (int table = 0; table < VOLUME_TABLE_COUNT; table++) {
            HF_ASSERT(volume_del_range(txn, (enum volume_table)table,
                                       (struct volume_bytes){ first, sizeof first },
                                       (struct volume_bytes){ last, sizeof last }) == VOLUME_OK);
        }
        HF_ASSERT(volume_commit(txn) == VOLUME_OK);
    }
}

void scratch_volumes_close(struct scratch_volumes *scratch)
{
    char path[128];

    for (uint16_t v = 0; v < scratch->count; v++) {
        volume_close(scratch->volumes[v]);
        snprintf(path, sizeof path, "%s/%u", scratch->path, v);
        unlink(path);
        snprintf(path, sizeof path, "%s/%u-lock", scratch->path, v);
        unlink(path);
    }
    rmdir(scratch->path);
}
