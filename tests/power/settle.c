#include "tests/power/settle.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/power/disk.h"
#include "tests/power/history.h"
#include "tests/power/image.h"

static void append(int fd, const struct op *op, const void *payload)
{
    if (write(fd, op, sizeof *op) != (ssize_t)sizeof *op ||
        (payload != NULL &&
         write(fd, payload, (size_t)op->payload_bytes) != (ssize_t)op->payload_bytes)) {
        power_die("the log can't be written");
    }
}

/* What is there now, where that write was to go. */
static void settle_write(const struct disk *disk, const struct op *write_op, int log,
                         const char *folder)
{
    char relative[2 * DISK_NAME_BYTES];
    char path[4096];
    const uint32_t file = disk_file_of(disk, write_op->file);

    if (!disk_path(&disk->seen, file, relative)) {
        return; /* it has no name any more */
    }
    (void)snprintf(path, sizeof path, "%s/%s", folder, relative);

    uint8_t *bytes = malloc((size_t)write_op->byte_count);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd < 0 || bytes == NULL ? -1
                                                : pread(fd, bytes, (size_t)write_op->byte_count,
                                                        (off_t)write_op->offset);

    if (got < 0) {
        power_die("%s: can't be read", path);
    }
    (void)close(fd);
    if (got > 0) {
        struct op op = *write_op;

        op.kind = OP_WRITE;
        op.flags = 0;
        op.id = write_op->id ^ UINT64_MAX;
        op.byte_count = op.payload_bytes = (uint64_t)got;
        append(log, &op, bytes);
        op.kind = OP_WRITTEN;
        op.payload_bytes = 0;
        append(log, &op, NULL);
    }
    free(bytes);
}

int settle(const char *path, const char *folder)
{
    struct history history;
    struct disk disk;
    size_t last_start = 0;

    history_open(&history, path);
    if (truncate(path, (off_t)history.whole_bytes) != 0) {
        power_die("%s: can't be cut", path);
    }
    disk_init(&disk, &history, DISK_FORGETS_NOTHING);
    disk_advance(&disk, history.count);
    for (size_t i = 0; i < history.count; i++) {
        if (history.ops[i].op->kind == OP_START) {
            last_start = i;
        }
    }

    const int log = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

    if (log < 0) {
        power_die("%s: can't be written", path);
    }
    for (size_t i = last_start; i < history.count; i++) {
        if (history.ops[i].op->kind == OP_WRITE && history.ops[i].other == HISTORY_NONE) {
            settle_write(&disk, history.ops[i].op, log, folder);
        }
    }
    (void)close(log);
    disk_deinit(&disk);
    history_close(&history);
    return 0;
}

int settle_compare(const char *path, const char *folder)
{
    struct history history;
    struct disk disk;
    size_t syncs = 0;

    history_open(&history, path);
    disk_init(&disk, &history, DISK_FORGETS_NOTHING);
    disk_advance(&disk, history.count);
    for (size_t i = 0; i < history.count; i++) {
        syncs += history.ops[i].op->kind == OP_SYNCED;
    }

    const bool same = image_compare(&disk, folder);

    (void)printf("%zu operations, %zu syncs: the log is %sthe directory\n", history.count, syncs,
                 same ? "" : "NOT ");
    disk_deinit(&disk);
    history_close(&history);
    return same ? 0 : 1;
}
