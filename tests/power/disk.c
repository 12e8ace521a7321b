#include "tests/power/disk.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Bytes ---- */

void disk_bytes_grow(struct disk_bytes *bytes, size_t byte_count)
{
    if (byte_count <= bytes->byte_count) {
        return;
    }
    bytes->bytes = power_grow(bytes->bytes, &bytes->room, byte_count, 1);
    memset(bytes->bytes + bytes->byte_count, 0, byte_count - bytes->byte_count);
    bytes->byte_count = byte_count;
}

void disk_bytes_copy(struct disk_bytes *to, const struct disk_bytes *from)
{
    to->byte_count = 0;
    to->bytes = power_grow(to->bytes, &to->room, from->byte_count + 1, 1);
    if (from->byte_count > 0) {
        memcpy(to->bytes, from->bytes, from->byte_count);
    }
    to->byte_count = from->byte_count;
}

void disk_bytes_apply(const struct disk *disk, struct disk_bytes *bytes, size_t index)
{
    const struct history_op *entry = &disk->history->ops[index];
    const struct op *op = entry->op;

    if (op->kind == OP_SIZE) {
        if (op->byte_count < bytes->byte_count) {
            bytes->byte_count = (size_t)op->byte_count;
        }
        disk_bytes_grow(bytes, (size_t)op->byte_count);
        return;
    }
    disk_bytes_grow(bytes, (size_t)(op->offset + op->byte_count));
    if ((op->flags & OP_ZEROS) != 0) {
        memset(bytes->bytes + op->offset, 0, (size_t)op->byte_count);
    } else {
        memcpy(bytes->bytes + op->offset, entry->payload, (size_t)op->byte_count);
    }
}

/* ---- Names ---- */

void disk_names_copy(struct disk_names *to, const struct disk_names *from)
{
    to->names = power_grow(to->names, &to->room, from->count + 1, sizeof *to->names);
    if (from->count > 0) {
        memcpy(to->names, from->names, from->count * sizeof *to->names);
    }
    to->count = from->count;
}

static size_t find_name(const struct disk_names *names, uint32_t folder, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (names->names[i].folder == folder && strcmp(names->names[i].name, name) == 0) {
            return i;
        }
    }
    return HISTORY_NONE;
}

static void remove_name(struct disk_names *names, uint32_t folder, const char *name)
{
    const size_t at = find_name(names, folder, name);

    if (at != HISTORY_NONE) {
        names->names[at] = names->names[--names->count];
    }
}

static void add_name(struct disk_names *names, uint32_t folder, const char *name, uint32_t file)
{
    remove_name(names, folder, name); /* a rename takes the place of what was there */
    names->names = power_grow(names->names, &names->room, names->count + 1, sizeof *names->names);

    struct disk_name *added = &names->names[names->count++];

    added->folder = folder;
    added->file = file;
    (void)snprintf(added->name, sizeof added->name, "%s", name);
}

static void take_payload(const struct history_op *entry, char name[2 * DISK_NAME_BYTES])
{
    const size_t length = (size_t)entry->op->payload_bytes;

    if (length >= (size_t)2 * DISK_NAME_BYTES) {
        power_die("a name of %zu bytes", length);
    }
    memcpy(name, entry->payload, length);
    name[length] = '\0';
}

void disk_names_apply(const struct disk *disk, struct disk_names *names, size_t index)
{
    const struct history_op *entry = &disk->history->ops[index];
    const uint32_t folder = disk->folder_of_op[index];
    char name[2 * DISK_NAME_BYTES];

    take_payload(entry, name);
    switch (entry->op->kind) {
    case OP_MAKE:
        add_name(names, folder, name, disk->file_of_op[index]);
        break;
    case OP_RENAME: {
        const size_t from = find_name(names, folder, name);

        /* The old name may never have become durable: its file has the new one all the same. */
        const uint32_t file =
            from != HISTORY_NONE ? names->names[from].file : disk->file_of_op[index];
        remove_name(names, folder, name);
        add_name(names, folder, name + strlen(name) + 1, file);
        break;
    }
    case OP_UNLINK:
        remove_name(names, folder, name);
        break;
    default:
        break;
    }
}

bool disk_path(const struct disk_names *names, uint32_t file, char path[2 * DISK_NAME_BYTES])
{
    for (size_t i = 0; i < names->count; i++) {
        const struct disk_name *name = &names->names[i];

        if (name->file != file) {
            continue;
        }
        if (name->folder == 0) {
            (void)snprintf(path, DISK_NAME_BYTES, "%s", name->name);
            return true;
        }
        char folder[2 * DISK_NAME_BYTES];

        if (!disk_path(names, name->folder, folder)) {
            return false; /* its folder is gone */
        }
        (void)snprintf(path, (size_t)2 * DISK_NAME_BYTES, "%.127s/%.127s", folder, name->name);
        return true;
    }
    return false;
}

/* ---- Files ---- */

/* Numbers come again: the newest file of that number. */
uint32_t disk_file_of(const struct disk *disk, uint64_t inode)
{
    for (size_t i = disk->file_count; i-- > 0;) {
        if (disk->files[i].inode == inode) {
            return (uint32_t)i;
        }
    }
    power_die("no file of inode %" PRIu64 " was made", inode);
}

static uint32_t add_file(struct disk *disk, uint64_t inode, bool folder, const char *name)
{
    disk->files =
        power_grow(disk->files, &disk->file_room, disk->file_count + 1, sizeof *disk->files);

    struct disk_file *file = &disk->files[disk->file_count];

    memset(file, 0, sizeof *file);
    file->inode = inode;
    file->folder = folder;
    (void)snprintf(file->first_name, sizeof file->first_name, "%.127s", name);
    return (uint32_t)disk->file_count++;
}

void disk_init(struct disk *disk, const struct history *history, enum disk_forgets forgets)
{
    memset(disk, 0, sizeof *disk);
    disk->history = history;
    disk->forgets = forgets;
    disk->file_of_op = calloc(history->count + 1, sizeof *disk->file_of_op);
    disk->folder_of_op = calloc(history->count + 1, sizeof *disk->folder_of_op);
    if (disk->file_of_op == NULL || disk->folder_of_op == NULL) {
        power_die("no memory");
    }
}

void disk_deinit(struct disk *disk)
{
    for (size_t i = 0; i < disk->file_count; i++) {
        free(disk->files[i].seen.bytes);
        free(disk->files[i].durable.bytes);
        free(disk->files[i].owed);
    }
    free(disk->files);
    free(disk->seen.names);
    free(disk->durable.names);
    free(disk->owed_names);
    free(disk->file_of_op);
    free(disk->folder_of_op);
    memset(disk, 0, sizeof *disk);
}

/* ---- Walking ---- */

static void owe(struct disk_file *file, size_t op)
{
    file->owed = power_grow(file->owed, &file->owed_room, file->owed_count + 1, sizeof *file->owed);
    file->owed[file->owed_count++] = (uint32_t)op;
}

static void owe_name(struct disk *disk, size_t op)
{
    disk->owed_names = power_grow(disk->owed_names, &disk->owed_name_room,
                                  disk->owed_name_count + 1, sizeof *disk->owed_names);
    disk->owed_names[disk->owed_name_count++] = (uint32_t)op;
    disk_names_apply(disk, &disk->seen, op);
}

static bool is_segment(const struct disk_file *file)
{
    return file->first_name[0] >= '0' && file->first_name[0] <= '9';
}

static bool is_volume(const struct disk_file *file)
{
    return strncmp(file->first_name, "volume-", strlen("volume-")) == 0;
}

static bool forgotten(const struct disk *disk, const struct disk_file *file, const struct op *end)
{
    const bool explicitly = (end->flags & OP_EXPLICIT) != 0;

    switch (disk->forgets) {
    case DISK_FORGETS_NOTHING:
        return false;
    case DISK_FORGETS_JOURNAL:
        return end->kind == OP_WRITTEN && is_segment(file);
    case DISK_FORGETS_VOLUME:
        return end->kind == OP_SYNCED && is_volume(file) && explicitly;
    case DISK_FORGETS_COMMIT:
        return end->kind == OP_SYNCED && is_volume(file) && !explicitly;
    case DISK_FORGETS_MANIFEST:
        return end->kind == OP_SYNCED && strcmp(file->first_name, "manifest.new") == 0;
    case DISK_FORGETS_FOLDER:
        return end->kind == OP_SYNCED && file->folder;
    case DISK_FORGETS_SEGMENTS:
        return end->kind == OP_SYNCED && is_segment(file);
    }
    return false;
}

static bool overlap(const struct op *a, const struct op *b)
{
    return a->kind == OP_WRITE && a->offset < b->offset + b->byte_count &&
           b->offset < a->offset + a->byte_count;
}

/* Whether the end `index` pays for the owed op. */
static bool pays(const struct disk *disk, size_t index, size_t owed)
{
    const struct history_op *end = &disk->history->ops[index];
    const struct history_op *one = &disk->history->ops[owed];

    if (end->op->kind == OP_SYNCED) {
        /* A cut has ended when it is logged. */
        const size_t ended = one->op->kind == OP_WRITE ? one->other : owed;
        return ended != HISTORY_NONE && ended < end->other;
    }
    /* With what it lies over: that can't come back from behind. */
    return owed <= end->other && overlap(one->op, disk->history->ops[end->other].op);
}

static void pay(struct disk *disk, struct disk_file *file, size_t index)
{
    size_t kept = 0;

    for (size_t i = 0; i < file->owed_count; i++) {
        const uint32_t owed = file->owed[i];

        if (pays(disk, index, owed)) {
            disk_bytes_apply(disk, &file->durable, owed);
        } else {
            file->owed[kept++] = owed;
        }
    }
    file->owed_count = kept;
}

static void pay_names(struct disk *disk, uint32_t folder, size_t begun)
{
    size_t kept = 0;

    for (size_t i = 0; i < disk->owed_name_count; i++) {
        const uint32_t owed = disk->owed_names[i];

        if (disk->folder_of_op[owed] == folder && owed < begun) {
            disk_names_apply(disk, &disk->durable, owed);
        } else {
            disk->owed_names[kept++] = owed;
        }
    }
    disk->owed_name_count = kept;
}

static void end_op(struct disk *disk, size_t index)
{
    const struct history_op *end = &disk->history->ops[index];
    const uint32_t number = disk_file_of(disk, end->op->file);
    struct disk_file *file = &disk->files[number];

    if (end->op->kind == OP_WRITTEN &&
        ((end->op->flags & OP_DURABLE) == 0 ||
         end->op->byte_count != disk->history->ops[end->other].op->byte_count)) {
        return;
    }
    if (forgotten(disk, file, end->op)) {
        return;
    }
    if (file->folder) {
        pay_names(disk, number, end->other);
    } else {
        pay(disk, file, index);
    }
}

/*
 * What a killed process had in flight was settled before the next one: as a write of its own, of what
 * was there then. What wasn't there can't appear later.
 */
static void forget_in_flight(struct disk *disk)
{
    for (size_t f = 0; f < disk->file_count; f++) {
        struct disk_file *file = &disk->files[f];
        size_t kept = 0;

        for (size_t i = 0; i < file->owed_count; i++) {
            const struct history_op *owed = &disk->history->ops[file->owed[i]];

            if (owed->op->kind != OP_WRITE || owed->other != HISTORY_NONE) {
                file->owed[kept++] = file->owed[i];
            }
        }
        file->owed_count = kept;
    }
}

static void step(struct disk *disk, size_t index)
{
    const struct history_op *entry = &disk->history->ops[index];
    const struct op *op = entry->op;
    char name[2 * DISK_NAME_BYTES];

    switch (op->kind) {
    case OP_START:
        if (disk->file_count == 0) {
            (void)add_file(disk, op->file, true, "");
        }
        forget_in_flight(disk);
        break;
    case OP_WRITE:
    case OP_SIZE: {
        struct disk_file *file = &disk->files[disk_file_of(disk, op->file)];

        owe(file, index);
        disk_bytes_apply(disk, &file->seen, index);
        break;
    }
    case OP_WRITTEN:
    case OP_SYNCED:
        end_op(disk, index);
        break;
    case OP_MAKE:
        take_payload(entry, name);
        disk->file_of_op[index] = add_file(disk, op->file, (op->flags & OP_FOLDER) != 0, name);
        disk->folder_of_op[index] = disk_file_of(disk, op->folder);
        owe_name(disk, index);
        break;
    case OP_RENAME:
    case OP_UNLINK:
        disk->file_of_op[index] = disk_file_of(disk, op->file);
        disk->folder_of_op[index] = disk_file_of(disk, op->folder);
        owe_name(disk, index);
        break;
    default:
        break;
    }
}

void disk_advance(struct disk *disk, size_t upto)
{
    while (disk->next_op < upto && disk->next_op < disk->history->count) {
        step(disk, disk->next_op);
        disk->next_op++;
    }
}
