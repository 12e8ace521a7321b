#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "store/volume_internal.h"
#include "store/volume_lmdb.h"

/*
 * MDB_NOTLS: a reader is its transaction's, not its thread's. MDB_NORDAHEAD: a cold page costs 72
 * us, not 5.7 ms. MDB_NOMETASYNC: a commit is one flush instead of two; a power cut may take the
 * last one back, whole, and volume_sync() ends that doubt before anyone relies on `applied`.
 * Never MDB_NOSYNC nor MDB_WRITEMAP: the one corrupts, the other dies of a full disk.
 */
#define ENV_FLAGS (MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD | MDB_NOMETASYNC)

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER
#endif
#elif defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZER
#endif
#ifdef THREAD_SANITIZER
#define MAP_BYTES_DEFAULT (UINT64_C(8) << 30) /* it leaves a program little address space */
#else
#define MAP_BYTES_DEFAULT (UINT64_C(1) << 40) /* 64 volumes: half of what a process may map */
#endif
#define RESERVE_BYTES_DEFAULT (UINT64_C(64) << 20)

#define NAME_BYTES 2048

static void open_failed(struct hf_error *error, const char *path, int code)
{
    if (code == MDB_INVALID || code == MDB_VERSION_MISMATCH || code == MDB_CORRUPTED) {
        hf_error_set(error, EX_DATAERR, 0, "%s: damaged, or no volume: %s", path,
                     mdb_strerror(code));
    } else if (code == ENOMEM) {
        hf_error_set(
            error, EX_OSERR, 0,
            "%s: can't be mapped: too little address space (RLIMIT_AS), or its first pages "
            "are damaged",
            path);
    } else if (code == ENOENT) {
        hf_error_set(error, EX_DATAERR, ENOENT, "%s is missing", path);
    } else if (code < 0) {
        hf_error_set(error, EX_OSERR, 0, "%s: %s", path, mdb_strerror(code));
    } else {
        hf_error_set(error, code == EACCES || code == EPERM ? EX_NOPERM : EX_IOERR, code, "%s",
                     path);
    }
}

static int open_tables(struct volume *volume, bool create)
{
    static const char *const names[VOLUME_TABLE_COUNT] = { "user", "body", "out", "meta" };
    MDB_txn *txn;
    int code = mdb_txn_begin(volume->env, NULL, 0, &txn);

    if (code != 0) {
        return code;
    }
    for (int i = 0; code == 0 && i < VOLUME_TABLE_COUNT; i++) {
        code = mdb_dbi_open(txn, names[i], create ? MDB_CREATE : 0, &volume->tables[i]);
    }
    if (code != 0) {
        mdb_txn_abort(txn);
        return code == MDB_NOTFOUND ? MDB_INVALID : code;
    }
    return mdb_txn_commit(txn);
}

static int open_env(struct volume *volume, const char *path)
{
    int dead;
    int code = mdb_env_create(&volume->env);

    if (code == 0) {
        code = mdb_env_set_mapsize(volume->env, volume->map_bytes);
    }
    if (code == 0) {
        code = mdb_env_set_maxdbs(volume->env, VOLUME_TABLE_COUNT);
    }
    if (code == 0) {
        code = mdb_env_open(volume->env, path, ENV_FLAGS, 0600);
    }
    if (code == 0) {
        code = mdb_reader_check(volume->env, &dead); /* what a killed process left */
    }
    if (code == 0) {
        code = mdb_env_get_fd(volume->env, &volume->fd);
    }
    return code;
}

/* Everything of a new file's folder: its name, that is. */
static int sync_folder_of(const char *path)
{
    char folder[NAME_BYTES];
    const char *slash = strrchr(path, '/');
    const size_t length = slash == NULL ? 0 : (size_t)(slash - path);

    (void)snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 1 : (int)length + 1,
                   slash == NULL ? "." : path);

    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int code = fd >= 0 && fsync(fd) == 0 ? 0 : errno;

    if (fd >= 0) {
        (void)close(fd);
    }
    return code;
}

/*
 * A new file gets its name when it is whole and synced: LMDB's own way of making one leaves, after a
 * power cut, a file that is neither new nor a volume.
 */
static int make_file(uint64_t map_bytes, const char *path)
{
    struct volume fresh = { .map_bytes = map_bytes };
    char name[NAME_BYTES];
    char lock[NAME_BYTES + sizeof "-lock"];
    int code;

    if (snprintf(name, sizeof name, "%s.new", path) >= (int)sizeof name) {
        return ENAMETOOLONG;
    }
    (void)snprintf(lock, sizeof lock, "%s-lock", name);
    (void)unlink(name);
    (void)unlink(lock);
    code = open_env(&fresh, name);
    if (code == 0) {
        code = open_tables(&fresh, true);
    }
    if (code == 0) {
        code = mdb_env_sync(fresh.env, 1);
    }
    mdb_env_close(fresh.env);
    (void)unlink(lock);
    if (code == 0 && rename(name, path) != 0) {
        code = errno;
    }
    return code == 0 ? sync_folder_of(path) : code;
}

bool volume_measure_file(struct volume *volume)
{
    struct stat status;

    if (fstat(volume->fd, &status) != 0) {
        return false;
    }
    volume->file_bytes = (uint64_t)status.st_size;
    return true;
}

/* A file shorter than its own idea of itself would be a SIGBUS at the first page that it lacks. */
static bool check_length(struct volume *volume, const char *path, struct hf_error *error)
{
    MDB_stat tree;
    uint64_t file_bytes;
    uint64_t used_bytes;

    mdb_env_stat(volume->env, &tree);
    volume->page_bytes = tree.ms_psize;
    if (!volume_measure_file(volume)) {
        hf_error_set(error, EX_IOERR, errno, "%s", path);
        return false;
    }
    volume_get_bytes(volume, &file_bytes, &used_bytes);
    if (file_bytes < used_bytes) {
        hf_error_set(error, EX_DATAERR, 0,
                     "%s: damaged: %" PRIu64 " bytes long, but it should be %" PRIu64 " at least",
                     path, file_bytes, used_bytes);
        return false;
    }
    return true;
}

static bool check_file(const char *path, bool create, bool *missing, struct hf_error *error)
{
    struct stat status;

    *missing = false;
    if (stat(path, &status) == 0) {
        if (!S_ISREG(status.st_mode)) {
            hf_error_set(error, EX_DATAERR, 0, "%s: not a file", path);
            return false;
        }
        /* LMDB reads an empty file as a new one; here it is what is left of a volume. */
        if (status.st_size == 0 && !create) {
            hf_error_set(error, EX_DATAERR, 0, "%s: damaged: it is empty", path);
            return false;
        }
        *missing = status.st_size == 0;
        return true;
    }
    if (errno == ENOENT && create) {
        *missing = true;
        return true;
    }
    open_failed(error, path, errno);
    return false;
}

struct volume *volume_open(const char *path, const struct volume_options *options,
                           struct hf_error *error)
{
    struct volume *volume;
    bool missing;
    int code;

    if (!check_file(path, options->create, &missing, error)) {
        return NULL;
    }
    volume = calloc(1, sizeof *volume);
    if (volume == NULL) {
        hf_error_set(error, EX_OSERR, 0, "%s: no memory", path);
        return NULL;
    }
    volume->map_bytes = options->map_bytes != 0 ? options->map_bytes : MAP_BYTES_DEFAULT;
    volume->reserve_bytes =
        options->reserve_bytes != 0 ? options->reserve_bytes : RESERVE_BYTES_DEFAULT;
    volume->write.volume = volume;
    volume->write.writes = true;
    volume->zeros_fd = -1;
    code = missing ? make_file(volume->map_bytes, path) : 0;
    if (code == 0) {
        code = open_env(volume, path);
    }
    if (code == 0) {
        if (!check_length(volume, path, error)) {
            volume_close(volume);
            return NULL;
        }
        code = open_tables(volume, false);
    }
    if (code == 0 && !options->buffered) {
        volume->zeros_fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    }
    if (code != 0) {
        open_failed(error, path, code);
        volume_close(volume);
        return NULL;
    }
    return volume;
}

void volume_close(struct volume *volume)
{
    if (volume == NULL) {
        return;
    }
    HF_ASSERT(!volume->write.active);
    if (volume->env != NULL) {
        mdb_env_close(volume->env);
    }
    if (volume->zeros_fd >= 0) {
        (void)close(volume->zeros_fd);
    }
    free(volume);
}

void volume_get_bytes(const struct volume *volume, uint64_t *file_bytes, uint64_t *used_bytes)
{
    MDB_envinfo info;

    mdb_env_info(volume->env, &info);
    *file_bytes = volume->file_bytes;
    *used_bytes = (info.me_last_pgno + 1) * volume->page_bytes;
}
