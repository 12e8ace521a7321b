#include "client/batch_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/crc32c.h"

#define FILE_MAGIC    UINT64_C(0x4846434c49454e54) /* HFCLIENT */
#define FILE_VERSION  1
#define BATCH_MAGIC   0x48464231U /* HFB1 */
#define CRC_AT        16
#define FIRST_ROOM    4096
#define NEW_FILE_NAME ".new"

/* ---- bytes */

static int read_whole(const struct batch_file *file, uint64_t offset, uint8_t *bytes,
                      size_t byte_count, struct hf_error *error)
{
    size_t done = 0;

    while (done < byte_count) {
        const ssize_t got =
            pread(file->descriptor, bytes + done, byte_count - done, (off_t)(offset + done));

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            hf_error_set(error, EX_IOERR, got < 0 ? errno : EIO, "%s: read", file->path);
            return -1;
        }
        done += (size_t)got;
    }
    return 0;
}

static int write_whole(const struct batch_file *file, uint64_t offset, const uint8_t *bytes,
                       size_t byte_count)
{
    size_t done = 0;

    while (done < byte_count) {
        const ssize_t got =
            pwrite(file->descriptor, bytes + done, byte_count - done, (off_t)(offset + done));

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? errno : EIO;
        }
        done += (size_t)got;
    }
    return 0;
}

static bool make_room(struct batch_file *file, size_t byte_count)
{
    size_t room = file->batch_room_ > 0 ? file->batch_room_ : FIRST_ROOM;

    if (byte_count > BATCH_BYTES_MAX) {
        return false;
    }
    while (room < byte_count) {
        room *= 2;
    }
    if (room > file->batch_room_) {
        uint8_t *batch = realloc(file->batch_, room);

        if (batch == NULL) {
            return false;
        }
        file->batch_ = batch;
        file->batch_room_ = room;
    }
    return true;
}

static uint32_t batch_crc(uint32_t salt, const uint8_t *batch, size_t byte_count)
{
    return crc32c(crc32c(salt, batch, CRC_AT), batch + BATCH_HEADER_BYTES,
                  byte_count - BATCH_HEADER_BYTES);
}

/* Bytes of the batch that these begin with; 0: they begin with none that is whole and right. */
static size_t batch_check(uint32_t salt, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count < BATCH_HEADER_BYTES || load_be32(bytes) != BATCH_MAGIC) {
        return 0;
    }

    const size_t batch_bytes = load_be32(bytes + 4);

    if (batch_bytes <= BATCH_HEADER_BYTES || batch_bytes > byte_count ||
        load_be32(bytes + CRC_AT) != batch_crc(salt, bytes, batch_bytes)) {
        return 0;
    }
    return batch_bytes;
}

/* ---- opening */

static int refuse_damage(const struct batch_file *file, uint64_t offset, const char *what,
                         struct hf_error *error)
{
    hf_error_set(error, EX_DATAERR, 0,
                 "%s: damaged at byte %llu (%s). Nothing was changed. Messages are still on the "
                 "server: restore the file from a backup, or move it away and log in again",
                 file->path, (unsigned long long)offset, what);
    return -1;
}

static int sync_directory(const char *path, struct hf_error *error)
{
    char copy[BATCH_PATH_BYTES];

    (void)snprintf(copy, sizeof copy, "%s", path);

    const char *directory = dirname(copy);
    const int descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (descriptor < 0 || fsync(descriptor) != 0) {
        hf_error_set(error, EX_IOERR, errno, "%s: sync", directory);
        if (descriptor >= 0) {
            (void)close(descriptor);
        }
        return -1;
    }
    (void)close(descriptor);
    return 0;
}

static int set_path(struct batch_file *file, const char *path, const char *suffix,
                    struct hf_error *error)
{
    memset(file, 0, sizeof *file);
    file->descriptor = -1;
    if ((size_t)snprintf(file->path, sizeof file->path, "%s%s", path, suffix) >=
        sizeof file->path) {
        hf_error_set(error, EX_USAGE, ENAMETOOLONG, "%s", path);
        return -1;
    }
    return 0;
}

int batch_file_open_new(struct batch_file *file, const char *path, struct hf_error *error)
{
    uint8_t header[BATCH_FILE_HEADER_BYTES] = { 0 };

    if (set_path(file, path, NEW_FILE_NAME, error) != 0) {
        return -1;
    }
    file->descriptor = open(file->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file->descriptor < 0) {
        hf_error_set(error, EX_CANTCREAT, errno, "%s", file->path);
        return -1;
    }
    if (getrandom(&file->salt, sizeof file->salt, 0) != sizeof file->salt) {
        hf_error_set(error, EX_OSERR, errno, "random bytes");
        batch_file_close(file);
        return -1;
    }
    store_be64(header, FILE_MAGIC);
    store_be32(header + 8, FILE_VERSION);
    store_be32(header + 12, file->salt);
    store_be32(header + CRC_AT, crc32c(0, header, CRC_AT));

    const int failed = write_whole(file, 0, header, sizeof header);

    if (failed != 0) {
        hf_error_set(error, EX_IOERR, failed, "%s: write", file->path);
        batch_file_close(file);
        return -1;
    }
    file->end = sizeof header;
    return 0;
}

int batch_file_replace(struct batch_file *file, struct batch_file *made, struct hf_error *error)
{
    char path[sizeof file->path];

    HF_ASSERT(batch_file_waiting(made) == 0 && !made->broken);
    memcpy(path, file->path, sizeof path);
    if (fsync(made->descriptor) != 0 || rename(made->path, path) != 0) {
        hf_error_set(error, EX_IOERR, errno, "%s: replace", path);
        return -1;
    }
    batch_file_close(file);
    *file = *made;
    memcpy(file->path, path, sizeof path);
    memset(made, 0, sizeof *made);
    made->descriptor = -1;
    return sync_directory(path, error);
}

static int make_first(struct batch_file *file, struct hf_error *error)
{
    struct batch_file made;

    if (batch_file_open_new(&made, file->path, error) != 0) {
        return -1;
    }
    if (batch_file_replace(file, &made, error) != 0) {
        batch_file_close(&made);
        return -1;
    }
    return 0;
}

static int check_header(struct batch_file *file, struct hf_error *error)
{
    uint8_t header[BATCH_FILE_HEADER_BYTES];
    struct stat stat;

    if (fstat(file->descriptor, &stat) != 0) {
        hf_error_set(error, EX_IOERR, errno, "%s", file->path);
        return -1;
    }
    if (!S_ISREG(stat.st_mode) || (stat.st_mode & 077) != 0) {
        hf_error_set(error, EX_NOPERM, 0,
                     "%s: holds secrets, but isn't a file that only its owner can read "
                     "(chmod 600 %s)",
                     file->path, file->path);
        return -1;
    }
    if (stat.st_size < (off_t)sizeof header) {
        hf_error_set(error, EX_DATAERR, 0, "%s: isn't a file of a Holdfast client", file->path);
        return -1;
    }
    if (read_whole(file, 0, header, sizeof header, error) != 0) {
        return -1;
    }
    if (load_be64(header) != FILE_MAGIC) {
        hf_error_set(error, EX_DATAERR, 0, "%s: isn't a file of a Holdfast client", file->path);
        return -1;
    }
    if (load_be32(header + 8) != FILE_VERSION) {
        hf_error_set(error, EX_DATAERR, 0,
                     "%s: has format %u, this program knows %u: use a newer program", file->path,
                     load_be32(header + 8), FILE_VERSION);
        return -1;
    }
    /* Under a wrong salt every batch would look torn. */
    if (load_be32(header + CRC_AT) != crc32c(0, header, CRC_AT)) {
        return refuse_damage(file, 0, "the header is bad", error);
    }
    file->salt = load_be32(header + 12);
    file->end = sizeof header;
    return 0;
}

int batch_file_open(struct batch_file *file, const char *path, struct hf_error *error)
{
    if (set_path(file, path, "", error) != 0) {
        return -1;
    }
    file->descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (file->descriptor < 0) {
        if (errno == ENOENT) {
            return make_first(file, error);
        }
        hf_error_set(error, EX_NOINPUT, errno, "%s", path);
        return -1;
    }
    if (check_header(file, error) != 0) {
        batch_file_close(file);
        return -1;
    }
    return 0;
}

void batch_file_close(struct batch_file *file)
{
    if (file->descriptor >= 0) {
        (void)close(file->descriptor);
    }
    free(file->batch_);
    file->descriptor = -1;
    file->batch_ = NULL;
    file->batch_bytes_ = 0;
    file->batch_room_ = 0;
}

/* ---- loading */

/*
 * What stands at `end` isn't a whole batch. As the last batch alone may be torn, nothing that was
 * ever written can follow it.
 */
static int cut_tail(struct batch_file *file, uint64_t left, struct hf_error *error)
{
    const char *const follows = "a good batch follows a bad one";

    if (left > BATCH_BYTES_MAX) {
        return refuse_damage(file, file->end, follows, error);
    }
    if (!make_room(file, (size_t)left)) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s", file->path);
        return -1;
    }
    if (read_whole(file, file->end, file->batch_, (size_t)left, error) != 0) {
        return -1;
    }
    for (size_t at = 1; at < left; at++) {
        if (batch_check(file->salt, file->batch_ + at, (size_t)left - at) > 0 &&
            load_be64(file->batch_ + at + 8) > file->number) {
            return refuse_damage(file, file->end, follows, error);
        }
    }
    if (ftruncate(file->descriptor, (off_t)file->end) != 0 || fsync(file->descriptor) != 0) {
        hf_error_set(error, EX_IOERR, errno, "%s: cut off a torn batch", file->path);
        return -1;
    }
    file->cut_bytes = left;
    return 0;
}

/* Reads the batch at `end`. 1; 0: no more; -1. */
static int load_batch(struct batch_file *file, struct hf_error *error)
{
    uint8_t header[BATCH_HEADER_BYTES];
    struct stat stat;

    if (fstat(file->descriptor, &stat) != 0) {
        hf_error_set(error, EX_IOERR, errno, "%s", file->path);
        return -1;
    }

    const uint64_t left = (uint64_t)stat.st_size - file->end;

    if (left == 0) {
        return 0;
    }
    if (left < sizeof header) {
        return cut_tail(file, left, error);
    }
    if (read_whole(file, file->end, header, sizeof header, error) != 0) {
        return -1;
    }

    const size_t batch_bytes = load_be32(header + 4);

    if (load_be32(header) != BATCH_MAGIC || batch_bytes > left ||
        batch_bytes <= BATCH_HEADER_BYTES || batch_bytes > BATCH_BYTES_MAX) {
        return cut_tail(file, left, error);
    }
    if (!make_room(file, batch_bytes)) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s", file->path);
        return -1;
    }
    if (read_whole(file, file->end, file->batch_, batch_bytes, error) != 0) {
        return -1;
    }
    if (batch_check(file->salt, file->batch_, batch_bytes) == 0) {
        return cut_tail(file, left, error);
    }
    if (load_be64(header + 8) != file->number + 1) {
        return refuse_damage(file, file->end, "a batch is missing", error);
    }
    file->batch_bytes_ = batch_bytes;
    file->read_at_ = BATCH_HEADER_BYTES;
    file->number++;
    file->end += batch_bytes;
    return 1;
}

int batch_file_load_next(struct batch_file *file, struct batch_record *record,
                         struct hf_error *error)
{
    if (file->read_at_ == file->batch_bytes_) {
        file->batch_bytes_ = 0;
        file->read_at_ = 0;

        const int loaded = load_batch(file, error);

        if (loaded <= 0) {
            return loaded;
        }
    }

    const size_t left = file->batch_bytes_ - file->read_at_;
    const uint8_t *at = file->batch_ + file->read_at_;
    const uint64_t offset = file->end - left;

    if (left < BATCH_RECORD_HEADER_BYTES || load_be24(at) > left - BATCH_RECORD_HEADER_BYTES) {
        return refuse_damage(file, offset, "a record is longer than its batch", error);
    }
    record->byte_count = load_be24(at);
    record->type = at[3];
    record->bytes = at + BATCH_RECORD_HEADER_BYTES;
    record->offset = offset;
    file->read_at_ += BATCH_RECORD_HEADER_BYTES + record->byte_count;
    return 1;
}

int batch_file_read(const struct batch_file *file, uint64_t offset, uint8_t *buffer, size_t room,
                    struct batch_record *record, struct hf_error *error)
{
    uint8_t header[BATCH_RECORD_HEADER_BYTES];

    if (offset + sizeof header > file->end ||
        read_whole(file, offset, header, sizeof header, error) != 0) {
        return refuse_damage(file, offset, "it is shorter than before", error);
    }
    record->byte_count = load_be24(header);
    record->type = header[3];
    record->bytes = buffer;
    record->offset = offset;
    if (record->byte_count > room || offset + sizeof header + record->byte_count > file->end) {
        return refuse_damage(file, offset, "a record has changed", error);
    }
    return read_whole(file, offset + sizeof header, buffer, record->byte_count, error);
}

/* ---- writing */

bool batch_file_add(struct batch_file *file, uint8_t type, const void *head, size_t head_bytes,
                    const void *body, size_t body_bytes, struct batch_record *record)
{
    const size_t payload_bytes = head_bytes + body_bytes;
    const size_t before =
        file->batch_bytes_ > BATCH_HEADER_BYTES ? file->batch_bytes_ : BATCH_HEADER_BYTES;

    if (payload_bytes > BATCH_RECORD_BYTES_MAX ||
        !make_room(file, before + BATCH_RECORD_HEADER_BYTES + payload_bytes)) {
        return false;
    }

    uint8_t *at = file->batch_ + before;

    store_be24(at, (uint32_t)payload_bytes);
    at[3] = type;
    at += BATCH_RECORD_HEADER_BYTES;
    if (head_bytes > 0) {
        memcpy(at, head, head_bytes);
    }
    if (body_bytes > 0) {
        memcpy(at + head_bytes, body, body_bytes);
    }
    file->batch_bytes_ = before + BATCH_RECORD_HEADER_BYTES + payload_bytes;
    record->type = type;
    record->bytes = at;
    record->byte_count = payload_bytes;
    record->offset = file->end + before;
    return true;
}

int batch_file_commit(struct batch_file *file, struct hf_error *error)
{
    const size_t batch_bytes = file->batch_bytes_;

    if (batch_file_waiting(file) == 0) {
        return 0;
    }
    if (file->broken) {
        hf_error_set(error, EX_IOERR, 0, "%s: an earlier write failed; start again", file->path);
        return -1;
    }
    store_be32(file->batch_, BATCH_MAGIC);
    store_be32(file->batch_ + 4, (uint32_t)batch_bytes);
    store_be64(file->batch_ + 8, file->number + 1);
    store_be32(file->batch_ + CRC_AT, batch_crc(file->salt, file->batch_, batch_bytes));
    file->batch_bytes_ = 0;

    int failed = write_whole(file, file->end, file->batch_, batch_bytes);

    if (failed != 0) {
        file->broken = true;
        if (ftruncate(file->descriptor, (off_t)file->end) != 0) {
            failed = errno; /* opening it again will cut the torn batch off */
        }
        hf_error_set(error, EX_IOERR, failed, "%s: write", file->path);
        return -1;
    }
    if (fdatasync(file->descriptor) != 0) {
        file->broken = true;
        hf_error_set(error, EX_IOERR, errno, "%s: sync", file->path);
        return -1;
    }
    file->number++;
    file->end += batch_bytes;
    return 0;
}
