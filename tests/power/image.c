#include "tests/power/image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES ((size_t)4096)
#define PATH_BYTES 2048

/* SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
uint64_t image_random_next(struct image_random *random)
{
    uint64_t value = random->state += UINT64_C(0x9e3779b97f4a7c15);

    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

uint64_t image_random_below(struct image_random *random, uint64_t bound)
{
    return image_random_next(random) % bound;
}

static bool chance(struct image_random *random, uint32_t permille)
{
    return image_random_below(random, 1000) < permille;
}

/* How an image treats what is owed: drawn once an image, so that extremes come too. */
struct temper {
    uint32_t keeps;       /* a write, in thousandths */
    uint32_t tears;       /* a write that is kept */
    uint32_t keeps_names; /* a name's change */
};

static struct temper draw_temper(struct image_random *random)
{
    static const uint32_t keeps[] = { 0, 100, 500, 900, 1000 };
    static const uint32_t tears[] = { 0, 200, 500, 1000 };
    static const uint32_t keeps_names[] = { 0, 300, 700, 1000 };

    return (struct temper){
        .keeps = keeps[image_random_below(random, sizeof keeps / sizeof keeps[0])],
        .tears = tears[image_random_below(random, sizeof tears / sizeof tears[0])],
        .keeps_names =
            keeps_names[image_random_below(random, sizeof keeps_names / sizeof keeps_names[0])],
    };
}

/* ---- Bytes ---- */

/* One sector as it was right after the write. */
static void keep_sector(struct disk_bytes *image, const struct disk_bytes *then, size_t at)
{
    size_t end = at + IMAGE_SECTOR_BYTES;

    if (end > then->byte_count) {
        end = then->byte_count;
    }
    if (at < end) {
        disk_bytes_grow(image, end);
        memcpy(image->bytes + at, then->bytes + at, end - at);
    }
}

static void keep_write(const struct op *op, const struct temper *temper,
                       struct image_random *random, const struct disk_bytes *then,
                       struct disk_bytes *image)
{
    const bool torn = chance(random, temper->tears);
    /* Few sectors missing, few there, or half. */
    const uint32_t there =
        torn ? (uint32_t[]){ 50, 500, 950 }[image_random_below(random, 3)] : 1000;
    const size_t end = (size_t)(op->offset + op->byte_count);

    for (size_t at = (size_t)op->offset / IMAGE_SECTOR_BYTES * IMAGE_SECTOR_BYTES; at < end;
         at += IMAGE_SECTOR_BYTES) {
        if (there == 1000 || chance(random, there)) {
            keep_sector(image, then, at);
        }
    }
}

static void draw_bytes(const struct disk *disk, const struct disk_file *file,
                       const struct temper *temper, struct image_random *random,
                       struct disk_bytes *then, struct disk_bytes *image)
{
    disk_bytes_copy(then, &file->durable);
    disk_bytes_copy(image, &file->durable);
    for (size_t i = 0; i < file->owed_count; i++) {
        const struct op *op = disk->history->ops[file->owed[i]].op;

        disk_bytes_apply(disk, then, file->owed[i]);
        if (!chance(random, temper->keeps)) {
            continue;
        }
        if (op->kind == OP_SIZE) {
            disk_bytes_apply(disk, image, file->owed[i]);
        } else {
            keep_write(op, temper, random, then, image);
        }
    }
}

/* ---- Names ---- */

/* Names whose change was lost: what depends on it is lost too. */
struct lost {
    struct disk_name *names;
    size_t count;
    size_t room;
};

static bool is_lost(const struct lost *lost, uint32_t folder, const char *name)
{
    for (size_t i = 0; i < lost->count; i++) {
        if (lost->names[i].folder == folder && strcmp(lost->names[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void lose(struct lost *lost, uint32_t folder, const char *name)
{
    lost->names = power_grow(lost->names, &lost->room, lost->count + 1, sizeof *lost->names);
    lost->names[lost->count].folder = folder;
    (void)snprintf(lost->names[lost->count].name, DISK_NAME_BYTES, "%.127s", name);
    lost->count++;
}

static void draw_names(const struct disk *disk, const struct temper *temper,
                       struct image_random *random, struct disk_names *names)
{
    struct lost lost = { 0 };

    disk_names_copy(names, &disk->durable);
    for (size_t i = 0; i < disk->owed_name_count; i++) {
        const size_t index = disk->owed_names[i];
        const struct history_op *entry = &disk->history->ops[index];
        const size_t length = (size_t)entry->op->payload_bytes;
        const uint32_t folder = disk->folder_of_op[index];
        char name[2 * DISK_NAME_BYTES] = { 0 };

        memcpy(name, entry->payload, length);

        const char *second = strlen(name) < length ? name + strlen(name) + 1 : name;

        if (is_lost(&lost, folder, name) || is_lost(&lost, folder, second) ||
            !chance(random, temper->keeps_names)) {
            lose(&lost, folder, name);
            lose(&lost, folder, second);
        } else {
            disk_names_apply(disk, names, index);
        }
    }
    free(lost.names);
}

/* ---- Folders ---- */

static void join_path(char to[PATH_BYTES], const char *folder, const char *name)
{
    if (snprintf(to, PATH_BYTES, "%s/%s", folder, name) >= PATH_BYTES) {
        power_die("%s: too long", folder);
    }
}

void image_empty_folder(const char *folder)
{
    DIR *listing = opendir(folder);
    const struct dirent *entry;
    char path[PATH_BYTES];

    if (listing == NULL) {
        if (errno == ENOENT && mkdir(folder, 0700) == 0) {
            return;
        }
        power_die("%s: can't be opened", folder);
    }
    while ((entry = readdir(listing)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        join_path(path, folder, entry->d_name);
        if (entry->d_type == DT_DIR) {
            image_empty_folder(path);
            (void)rmdir(path);
        } else {
            (void)unlink(path);
        }
    }
    (void)closedir(listing);
}

static bool is_zeros(const uint8_t *bytes, size_t byte_count)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, byte_count - 1) == 0;
}

/* Zeros are left out: most of a volume is. */
static void write_file(const char *path, const struct disk_bytes *bytes)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, (off_t)bytes->byte_count) != 0) {
        power_die("%s: can't be written", path);
    }
    for (size_t at = 0; at < bytes->byte_count; at += PAGE_BYTES) {
        const size_t left = bytes->byte_count - at;
        const size_t piece = left < PAGE_BYTES ? left : PAGE_BYTES;

        if (!is_zeros(bytes->bytes + at, piece) &&
            pwrite(fd, bytes->bytes + at, piece, (off_t)at) != (ssize_t)piece) {
            power_die("%s: can't be written", path);
        }
    }
    (void)close(fd);
}

static void make_folders(const struct disk *disk, const struct disk_names *names,
                         const char *folder)
{
    char path[PATH_BYTES];

    for (size_t i = 0; i < names->count; i++) {
        if (names->names[i].folder == 0 && disk->files[names->names[i].file].folder) {
            join_path(path, folder, names->names[i].name);
            if (mkdir(path, 0700) != 0) {
                power_die("%s: can't be made", path);
            }
        }
    }
}

size_t image_write(const struct disk *disk, struct image_random *random, const char *folder)
{
    const struct temper temper = draw_temper(random);
    struct disk_names names = { 0 };
    struct disk_bytes then = { 0 };
    struct disk_bytes image = { 0 };
    size_t owed = disk->owed_name_count;
    char path[PATH_BYTES];

    image_empty_folder(folder);
    draw_names(disk, &temper, random, &names);
    make_folders(disk, &names, folder);
    for (size_t i = 0; i < names.count; i++) {
        const struct disk_file *file = &disk->files[names.names[i].file];
        char relative[2 * DISK_NAME_BYTES];

        if (file->folder || !disk_path(&names, names.names[i].file, relative)) {
            continue;
        }
        join_path(path, folder, relative);
        owed += file->owed_count;
        if (file->owed_count == 0) {
            write_file(path, &file->durable);
        } else {
            draw_bytes(disk, file, &temper, random, &then, &image);
            write_file(path, &image);
        }
    }
    free(names.names);
    free(then.bytes);
    free(image.bytes);
    return owed;
}

/* ---- Comparing ---- */

/* LMDB's table of readers is mapped and written so; nothing in it outlives a process. */
static bool is_lock_file(const char *path)
{
    const size_t length = strlen(path);

    return length > 5 && strcmp(path + length - 5, "-lock") == 0;
}

static bool compare_file(const struct disk_bytes *bytes, const char *path)
{
    struct stat status;
    uint8_t page[PAGE_BYTES];
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &status) != 0) {
        (void)printf("%s: in the log, and not there\n", path);
        return false;
    }
    bool same = (size_t)status.st_size == bytes->byte_count;

    for (size_t at = 0; same && at < bytes->byte_count; at += PAGE_BYTES) {
        const ssize_t got = pread(fd, page, sizeof page, (off_t)at);

        same = got > 0 && memcmp(page, bytes->bytes + at, (size_t)got) == 0 &&
               at + (size_t)got ==
                   (at + PAGE_BYTES < bytes->byte_count ? at + PAGE_BYTES : bytes->byte_count);
        if (!same) {
            (void)printf("%s: differs from the log behind byte %zu\n", path, at);
        }
    }
    if ((size_t)status.st_size != bytes->byte_count) {
        (void)printf("%s: %lld bytes, %zu in the log\n", path, (long long)status.st_size,
                     bytes->byte_count);
    }
    (void)close(fd);
    return same;
}

static size_t count_entries(const char *folder)
{
    DIR *listing = opendir(folder);
    const struct dirent *entry;
    size_t count = 0;

    if (listing == NULL) {
        return 0;
    }
    while ((entry = readdir(listing)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        count++;
        if (entry->d_type == DT_DIR) {
            char path[PATH_BYTES];

            join_path(path, folder, entry->d_name);
            count += count_entries(path);
        }
    }
    (void)closedir(listing);
    return count;
}

bool image_compare(const struct disk *disk, const char *folder)
{
    size_t found = 0;
    bool same = true;
    char path[PATH_BYTES];

    for (size_t i = 0; i < disk->seen.count; i++) {
        const struct disk_file *file = &disk->files[disk->seen.names[i].file];
        char relative[2 * DISK_NAME_BYTES];

        if (!disk_path(&disk->seen, disk->seen.names[i].file, relative)) {
            continue;
        }
        found++;
        join_path(path, folder, relative);
        if (!file->folder && !is_lock_file(relative)) {
            same &= compare_file(&file->seen, path);
        }
    }
    const size_t there = count_entries(folder);

    if (there != found) {
        (void)printf("%s holds %zu names, and the log %zu\n", folder, there, found);
        same = false;
    }
    return same;
}
