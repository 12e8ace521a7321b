#include "store/directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "store/mark.h"
#include "store/recover.h"

#define VOLUME_COUNT_DEFAULT 16
#define NAME_BYTES_MAX       64
#define ZEROS_BYTES          ((size_t)1 << 20)

/* What directory_source() hands out: the segments of one core. */
struct core_segments {
    struct directory *directory;
    uint16_t core;
};

struct directory {
    char path[PATH_MAX];
    int fd;
    int lock_fd;
    int direct; /* O_DIRECT, or 0 */
    struct manifest manifest;
    int *segment_fds; /* core by core, as the manifest counts them */
    size_t segment_fd_count;
    struct core_segments cores[MANIFEST_CORES_MAX];
};

static int exit_code_of(int errno_value)
{
    switch (errno_value) {
    case EACCES:
    case EPERM:
    case EROFS:
        return EX_NOPERM;
    case ENOSPC:
    case EDQUOT:
        return EX_CANTCREAT;
    case ENOENT:
    case ENOTDIR:
        return EX_NOINPUT;
    default:
        return EX_IOERR;
    }
}

static bool failed(struct hf_error *error, int errno_value, const char *what)
{
    hf_error_set(error, exit_code_of(errno_value), errno_value, "%s", what);
    return false;
}

/* ---- Lock ---- */

static bool in_use(struct directory *directory, struct hf_error *error)
{
    char pid[24] = { 0 };
    const ssize_t length = pread(directory->lock_fd, pid, sizeof pid - 1, 0);

    if (length > 0 && strspn(pid, "0123456789") > 0) {
        pid[strspn(pid, "0123456789")] = '\0';
        hf_error_set(error, EX_TEMPFAIL, 0, "in use by another server (process %s)", pid);
    } else {
        hf_error_set(error, EX_TEMPFAIL, 0, "in use by another server");
    }
    return false;
}

/* The lock goes with the process, however it ends. */
static bool lock(struct directory *directory, struct hf_error *error)
{
    struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    char pid[24];
    int length;

    directory->lock_fd = openat(directory->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (directory->lock_fd < 0) {
        return failed(error, errno, "lock");
    }
    if (fcntl(directory->lock_fd, F_OFD_SETLK, &whole) != 0) {
        return errno == EAGAIN || errno == EACCES ? in_use(directory, error)
                                                  : failed(error, errno, "lock");
    }
    /* In place, and always as long: cut first, it might find the disk full. */
    length = snprintf(pid, sizeof pid, "%-20ld\n", (long)getpid());
    if (pwrite(directory->lock_fd, pid, (size_t)length, 0) != length) {
        return failed(error, errno, "lock");
    }
    return true;
}

/* ---- Files, written whole and synced ---- */

static bool write_all(int fd, const void *bytes, size_t byte_count)
{
    const uint8_t *at = bytes;

    while (byte_count > 0) {
        const ssize_t done = write(fd, at, byte_count);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            errno = done == 0 ? ENOSPC : errno;
            return false;
        }
        at += done;
        byte_count -= (size_t)done;
    }
    return true;
}

static bool write_manifest(struct directory *directory, const struct manifest *manifest,
                           struct hf_error *error)
{
    char text[MANIFEST_BYTES_MAX];
    const size_t length = manifest_encode(manifest, text);
    const int fd =
        openat(directory->fd, "manifest.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write_all(fd, text, length) && fsync(fd) == 0;
    int errno_value = errno;

    if (fd >= 0 && close(fd) != 0 && ok) {
        ok = false;
        errno_value = errno;
    }
    if (ok) {
        ok = renameat(directory->fd, "manifest.new", directory->fd, "manifest") == 0 &&
             fsync(directory->fd) == 0;
        errno_value = errno;
    }
    if (!ok) {
        return failed(error, errno_value, "writing the manifest");
    }
    directory->manifest = *manifest;
    return true;
}

static bool read_manifest(struct directory *directory, struct hf_error *error)
{
    char text[MANIFEST_BYTES_MAX + 1];
    const int fd = openat(directory->fd, "manifest", O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (fd < 0) {
        return failed(error, errno, "manifest");
    }
    length = read(fd, text, sizeof text);
    const int errno_value = errno;
    close(fd);
    if (length < 0) {
        return failed(error, errno_value, "manifest");
    }
    if (!manifest_decode(text, (size_t)length, &directory->manifest, error)) {
        hf_error_prepend(error, "manifest");
        return false;
    }
    return true;
}

/* ---- Opening ---- */

/* Without a manifest only an empty directory is taken: what else is there isn't ours to lose. */
static bool check_empty(struct directory *directory, struct hf_error *error)
{
    const int fd = openat(directory->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;
    bool empty = true;

    if (listing == NULL) {
        return failed(error, errno, "listing it");
    }
    while (empty && (entry = readdir(listing)) != NULL) {
        static const char *const harmless[] = { ".", "..", "lock", "manifest.new", "lost+found" };
        bool known = false;

        for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
            known |= strcmp(entry->d_name, harmless[i]) == 0;
        }
        if (!known) {
            hf_error_set(error, EX_DATAERR, 0,
                         "it holds \"%.40s\" but no manifest: no data directory, or a damaged one",
                         entry->d_name);
            empty = false;
        }
    }
    closedir(listing);
    return empty;
}

static bool open_manifest(struct directory *directory, const struct directory_options *options,
                          struct hf_error *error)
{
    struct manifest manifest = { .volume_count = options->volume_count };

    if (faccessat(directory->fd, "manifest", F_OK, 0) == 0) {
        if (!lock(directory, error) || !read_manifest(directory, error)) {
            return false;
        }
        if (options->volume_count != 0 &&
            options->volume_count != directory->manifest.volume_count) {
            hf_error_set(error, EX_CONFIG, 0, "it has %u volumes, for ever; %u are asked for",
                         directory->manifest.volume_count, options->volume_count);
            return false;
        }
        return true;
    }
    if (errno != ENOENT) {
        return failed(error, errno, "manifest");
    }
    if (!check_empty(directory, error)) {
        return false;
    }
    if (!options->create) {
        hf_error_set(error, EX_NOINPUT, 0, "there is no manifest: no data directory");
        return false;
    }
    if (manifest.volume_count == 0) {
        manifest.volume_count = VOLUME_COUNT_DEFAULT;
    }
    if (manifest.volume_count > SCHEMA_VOLUMES_MAX) {
        hf_error_set(error, EX_CONFIG, 0, "%u volumes: there may be 1 to %d", manifest.volume_count,
                     SCHEMA_VOLUMES_MAX);
        return false;
    }
    memcpy(manifest.directory_id, options->new_id, sizeof manifest.directory_id);
    return lock(directory, error) && write_manifest(directory, &manifest, error);
}

static bool open_folder(struct directory *directory, const struct directory_options *options,
                        struct hf_error *error)
{
    if (options->create && mkdir(directory->path, 0700) != 0 && errno != EEXIST) {
        return failed(error, errno, "making it");
    }
    directory->fd = open(directory->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return directory->fd >= 0 || failed(error, errno, "opening it");
}

struct directory *directory_open(const char *path, const struct directory_options *options,
                                 struct hf_error *error)
{
    struct directory *directory = calloc(1, sizeof *directory);

    if (directory == NULL) {
        hf_error_set(error, EX_OSERR, 0, "no memory");
        return NULL;
    }
    directory->fd = -1;
    directory->lock_fd = -1;
    directory->direct = options->buffered ? 0 : O_DIRECT;
    if (strlen(path) >= sizeof directory->path) {
        hf_error_set(error, EX_CONFIG, 0, "the path is too long");
    } else {
        memcpy(directory->path, path, strlen(path) + 1);
        if (open_folder(directory, options, error) && open_manifest(directory, options, error)) {
            return directory;
        }
    }
    hf_error_prepend(error, "data directory %s", path);
    directory_close(directory);
    return NULL;
}

static void close_segments(struct directory *directory)
{
    for (size_t i = 0; i < directory->segment_fd_count; i++) {
        if (directory->segment_fds[i] >= 0) {
            close(directory->segment_fds[i]);
        }
    }
    free(directory->segment_fds);
    directory->segment_fds = NULL;
    directory->segment_fd_count = 0;
}

void directory_close(struct directory *directory)
{
    if (directory == NULL) {
        return;
    }
    close_segments(directory);
    if (directory->fd >= 0) {
        close(directory->fd);
    }
    if (directory->lock_fd >= 0) {
        close(directory->lock_fd);
    }
    free(directory);
}

bool directory_is_new(const struct directory *directory)
{
    return directory->manifest.incarnation == 0;
}

const struct manifest *directory_manifest(const struct directory *directory)
{
    return &directory->manifest;
}

bool directory_volume_path(const struct directory *directory, uint16_t volume, char *path,
                           size_t room)
{
    const int length = snprintf(path, room, "%s/volume-%03u.mdb", directory->path, volume);
    return length > 0 && (size_t)length < room;
}

/* ---- Segments ---- */

static void folder_name(uint32_t journal_set, char name[NAME_BYTES_MAX])
{
    snprintf(name, NAME_BYTES_MAX, "journal-%" PRIu32, journal_set);
}

/* Behind a core's segments come its marks. */
static uint32_t file_count(const struct manifest *manifest)
{
    return manifest->segment_count + 1;
}

static uint32_t file_bytes(const struct manifest *manifest, uint32_t segment)
{
    return segment == manifest->segment_count ? MARK_FILE_BYTES : manifest->segment_bytes;
}

static void segment_name(const struct manifest *manifest, uint16_t core, uint32_t segment,
                         char name[NAME_BYTES_MAX])
{
    if (segment == manifest->segment_count) {
        snprintf(name, NAME_BYTES_MAX, "journal-%" PRIu32 "/%02u-mark", manifest->journal_set,
                 core);
    } else {
        snprintf(name, NAME_BYTES_MAX, "journal-%" PRIu32 "/%02u-%03" PRIu32, manifest->journal_set,
                 core, segment);
    }
}

static bool open_segment(struct directory *directory, const char *name, int flags,
                         uint32_t byte_count, int *fd, struct hf_error *error)
{
    struct stat status;

    *fd = openat(directory->fd, name, flags | O_CLOEXEC);
    if (*fd < 0 && errno == EINVAL && (flags & O_DIRECT) != 0) {
        *fd = openat(directory->fd, name, (flags & ~O_DIRECT) | O_CLOEXEC);
    }
    if (*fd < 0 || fstat(*fd, &status) != 0) {
        if (errno == ENOENT) {
            hf_error_set(error, EX_DATAERR, 0, "%s is missing", name);
            return false;
        }
        return failed(error, errno, name);
    }
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size != byte_count) {
        hf_error_set(error, EX_DATAERR, 0, "%s is %lld bytes long, and should be %u", name,
                     (long long)status.st_size, byte_count);
        return false;
    }
    return true;
}

static bool open_all_segments(struct directory *directory, int flags, struct hf_error *error)
{
    const struct manifest *manifest = &directory->manifest;
    const size_t count = (size_t)manifest->core_count * file_count(manifest);

    close_segments(directory);
    directory->segment_fds = malloc((count + 1) * sizeof directory->segment_fds[0]);
    if (directory->segment_fds == NULL) {
        hf_error_set(error, EX_OSERR, 0, "no memory");
        return false;
    }
    directory->segment_fd_count = count;
    for (size_t i = 0; i < count; i++) {
        directory->segment_fds[i] = -1;
    }
    for (size_t i = 0; i < count; i++) {
        char name[NAME_BYTES_MAX];
        const uint32_t segment = (uint32_t)(i % file_count(manifest));

        segment_name(manifest, (uint16_t)(i / file_count(manifest)), segment, name);
        if (!open_segment(directory, name, flags | directory->direct, file_bytes(manifest, segment),
                          &directory->segment_fds[i], error)) {
            return false;
        }
        /* What a killed process wrote last may be seen and yet not be on the disk. */
        if (flags == O_RDONLY && fdatasync(directory->segment_fds[i]) != 0) {
            return failed(error, errno, name);
        }
    }
    return true;
}

bool directory_open_segments(struct directory *directory, struct hf_error *error)
{
    if (!open_all_segments(directory, O_RDONLY, error)) {
        hf_error_prepend(error, "data directory %s", directory->path);
        return false;
    }
    return true;
}

int directory_segment_fd(const struct directory *directory, uint16_t core, uint32_t segment)
{
    const uint32_t files = file_count(&directory->manifest);

    HF_ASSERT(core < directory->manifest.core_count && segment < files);
    return directory->segment_fds[(size_t)core * files + segment];
}

void directory_segment_path(const struct directory *directory, uint16_t core, uint32_t segment,
                            char *path, size_t room)
{
    char name[NAME_BYTES_MAX];

    segment_name(&directory->manifest, core, segment, name);
    (void)snprintf(path, room, "%s/%s", directory->path, name);
}

static bool read_segment(void *context, uint32_t segment, uint64_t offset, uint8_t *to,
                         size_t byte_count)
{
    const struct core_segments *core = context;
    const int fd = directory_segment_fd(core->directory, core->core, segment);

    while (byte_count > 0) {
        const ssize_t done = pread(fd, to, byte_count, (off_t)offset);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return false;
        }
        if (done == 0) {
            memset(to, 0, byte_count); /* beyond the end of the file */
            return true;
        }
        to += done;
        offset += (uint64_t)done;
        byte_count -= (size_t)done;
    }
    return true;
}

struct journal_source directory_source(struct directory *directory, uint16_t core)
{
    HF_ASSERT(core < MANIFEST_CORES_MAX);
    directory->cores[core] = (struct core_segments){ directory, core };
    return (struct journal_source){ &directory->cores[core], read_segment };
}

/* ---- A new run ---- */

/* Removes a folder of segments, if it is there. */
static bool remove_folder(struct directory *directory, const char *name, struct hf_error *error)
{
    const int fd = openat(directory->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;
    bool ok = true;

    if (listing == NULL) {
        return errno == ENOENT || failed(error, errno, name);
    }
    while (ok && (entry = readdir(listing)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            ok = unlinkat(dirfd(listing), entry->d_name, 0) == 0 ||
                 failed(error, errno, entry->d_name);
        }
    }
    closedir(listing);
    return ok && (unlinkat(directory->fd, name, AT_REMOVEDIR) == 0 || failed(error, errno, name));
}

/* What starts that failed have left: folders of other sets than the manifest's. */
static bool remove_other_folders(struct directory *directory, struct hf_error *error)
{
    const int fd = openat(directory->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;
    char ours[NAME_BYTES_MAX];
    bool ok = true;

    folder_name(directory->manifest.journal_set, ours);
    if (listing == NULL) {
        return failed(error, errno, "listing it");
    }
    while (ok && (entry = readdir(listing)) != NULL) {
        if (strncmp(entry->d_name, "journal-", strlen("journal-")) == 0 &&
            strcmp(entry->d_name, ours) != 0) {
            ok = remove_folder(directory, entry->d_name, error);
        }
    }
    closedir(listing);
    return ok;
}

/* Zeros are written, not only promised: a write into blocks that never were is three times slower,
 * and may still find the disk full. */
static bool make_segment(struct directory *directory, const char *name, uint32_t segment_bytes)
{
    static const uint8_t zeros[ZEROS_BYTES];
    const int fd = openat(directory->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint32_t left = segment_bytes;
    bool ok = fd >= 0;
    int errno_value;

    while (ok && left > 0) {
        const size_t piece = left < sizeof zeros ? left : sizeof zeros;

        ok = write_all(fd, zeros, piece);
        left -= (uint32_t)piece;
    }
    ok = ok && fsync(fd) == 0;
    errno_value = errno;
    if (fd >= 0) {
        close(fd);
    }
    errno = errno_value;
    return ok;
}

static bool sync_folder(struct directory *directory, const char *name, struct hf_error *error)
{
    const int fd = openat(directory->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool ok = fd >= 0 && fsync(fd) == 0;
    const int errno_value = errno;

    if (fd >= 0) {
        close(fd);
    }
    return ok || failed(error, errno_value, name);
}

static bool make_segments(struct directory *directory, const struct manifest *manifest,
                          struct hf_error *error)
{
    const uint64_t needed =
        (uint64_t)manifest->core_count *
        ((uint64_t)manifest->segment_count * manifest->segment_bytes + MARK_FILE_BYTES);
    uint64_t free_bytes;
    char name[NAME_BYTES_MAX];

    folder_name(manifest->journal_set, name);
    if (!remove_folder(directory, name, error)) {
        return false;
    }
    if (directory_free_bytes(directory, &free_bytes) && free_bytes < needed) {
        hf_error_set(error, EX_CANTCREAT, 0,
                     "no room for the journals: they take %" PRIu64 " bytes, %" PRIu64 " are free",
                     needed, free_bytes);
        return false;
    }
    if (mkdirat(directory->fd, name, 0700) != 0) {
        return failed(error, errno, name);
    }
    for (uint16_t core = 0; core < manifest->core_count; core++) {
        for (uint32_t segment = 0; segment < file_count(manifest); segment++) {
            segment_name(manifest, core, segment, name);
            if (!make_segment(directory, name, file_bytes(manifest, segment))) {
                return failed(error, errno, name);
            }
        }
    }
    folder_name(manifest->journal_set, name);
    return sync_folder(directory, name, error) && sync_folder(directory, ".", error);
}

/* The old journals, all applied and synced, go before the new ones come: there may be no room for
 * both. In between the manifest says that there are none. */
static bool replace_segments(struct directory *directory, struct manifest *next,
                             struct hf_error *error)
{
    struct manifest none = directory->manifest;

    next->journal_set = directory->manifest.journal_set + 1;
    if (directory->manifest.journal_set != 0) {
        none.journal_set = 0;
        none.core_count = 0;
        none.start_lsn = next->start_lsn;
        memset(none.core_of_volume, 0, sizeof none.core_of_volume);
        close_segments(directory);
        if (!write_manifest(directory, &none, error)) {
            return false;
        }
    }
    return remove_other_folders(directory, error) && make_segments(directory, next, error);
}

static bool write_start_mark(struct directory *directory, const char *name, const uint8_t *block,
                             uint64_t incarnation)
{
    const off_t at = (off_t)mark_start_block(incarnation) * JOURNAL_BLOCK_BYTES;
    const int fd = openat(directory->fd, name, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && pwrite(fd, block, JOURNAL_BLOCK_BYTES, at) == JOURNAL_BLOCK_BYTES &&
              fsync(fd) == 0;
    const int errno_value = errno;

    if (fd >= 0 && close(fd) != 0) {
        ok = false;
    }
    errno = errno_value;
    return ok;
}

/* What the run's own marks go on from; those of the run before stay, until the manifest changes. */
static bool write_start_marks(struct directory *directory, const struct manifest *next,
                              struct hf_error *error)
{
    const struct mark mark = { next->start_lsn, next->start_lsn, 0 };
    uint8_t block[JOURNAL_BLOCK_BYTES];
    char name[NAME_BYTES_MAX];

    for (uint16_t core = 0; core < next->core_count; core++) {
        const struct journal_identity identity = { recover_block_id(next->directory_id),
                                                   next->incarnation, core };

        mark_seal(block, &identity, &mark);
        segment_name(next, core, next->segment_count, name);
        if (!write_start_mark(directory, name, block, next->incarnation)) {
            return failed(error, errno, name);
        }
    }
    return true;
}

bool directory_begin_run(struct directory *directory, const struct directory_run *run,
                         struct hf_error *error)
{
    const struct manifest *last = &directory->manifest;
    struct manifest next = *last;
    bool ok;

    HF_ASSERT(run->core_count > 0 && run->core_count <= MANIFEST_CORES_MAX);
    HF_ASSERT(run->start_lsn > last->start_lsn && run->start_lsn % JOURNAL_BLOCK_BYTES == 0);
    HF_ASSERT(run->epoch >= last->epoch);
    next.incarnation = last->incarnation + 1;
    next.epoch = run->epoch;
    next.start_lsn = run->start_lsn;
    next.core_count = run->core_count;
    next.segment_bytes = run->segment_bytes;
    next.segment_count = run->segment_count;
    memset(next.core_of_volume, 0, sizeof next.core_of_volume);
    for (uint16_t v = 0; v < last->volume_count; v++) {
        HF_ASSERT(run->core_of_volume[v] < run->core_count);
        next.core_of_volume[v] = run->core_of_volume[v];
        next.applied[v] = run->applied[v];
    }
    /* Old segments serve again as they are: what they hold is of an older incarnation. */
    ok = true;
    if (last->journal_set == 0 || last->core_count != next.core_count ||
        last->segment_bytes != next.segment_bytes || last->segment_count != next.segment_count) {
        ok = replace_segments(directory, &next, error);
    }
    ok = ok && write_start_marks(directory, &next, error) &&
         write_manifest(directory, &next, error) && open_all_segments(directory, O_RDWR, error) &&
         remove_other_folders(directory, error);
    if (!ok) {
        hf_error_prepend(error, "data directory %s", directory->path);
    }
    return ok;
}

bool directory_free_bytes(const struct directory *directory, uint64_t *free_bytes)
{
    struct statvfs space;

    if (fstatvfs(directory->fd, &space) != 0 || space.f_blocks == 0) {
        return false;
    }
    *free_bytes = (uint64_t)space.f_bavail * space.f_frsize;
    return true;
}
