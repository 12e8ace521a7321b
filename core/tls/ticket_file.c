/*
 * The ring's file. Part of tickets.h.
 *
 *      0  "HFTICKET"               8
 *      8  format version           4
 *     12  number of keys           4
 *     16  keys, oldest first      56 each: name 16, secret 32, use_from_unix_ms 8
 *         CRC32C of all before     4
 */
#include "core/tls/tickets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <mbedtls/platform_util.h>

#include "core/base/bytes.h"
#include "core/base/crc32c.h"

enum {
    RING_FILE_VERSION = 1,
    RING_HEADER_BYTES = 16,
    RING_KEY_BYTES = TLS_TICKET_NAME_BYTES + TLS_TICKET_SECRET_BYTES + 8,
    RING_CRC_BYTES = 4,
    RING_FILE_BYTES_MIN = RING_HEADER_BYTES + RING_CRC_BYTES,
    RING_FILE_BYTES_MAX = RING_FILE_BYTES_MIN + TLS_TICKET_KEYS_MAX * RING_KEY_BYTES,
};

_Static_assert((int)RING_FILE_BYTES_MAX == (int)TLS_TICKET_RING_BYTES_MAX,
               "documented in the header");

static const char ring_magic[8] = { 'H', 'F', 'T', 'I', 'C', 'K', 'E', 'T' };

size_t tls_tickets_encode(const struct tls_ticket_ring *ring, uint8_t *bytes)
{
    uint8_t *to = bytes + RING_HEADER_BYTES;

    memcpy(bytes, ring_magic, sizeof ring_magic);
    store_be32(bytes + 8, RING_FILE_VERSION);
    store_be32(bytes + 12, ring->key_count);
    for (uint32_t index = 0; index < ring->key_count; index++) {
        const struct tls_ticket_key *key = &ring->keys[index];

        memcpy(to, key->name, sizeof key->name);
        memcpy(to + TLS_TICKET_NAME_BYTES, key->secret, sizeof key->secret);
        store_be64(to + RING_KEY_BYTES - 8, key->use_from_unix_ms);
        to += RING_KEY_BYTES;
    }
    store_be32(to, crc32c(0, bytes, (size_t)(to - bytes)));
    return (size_t)(to - bytes) + RING_CRC_BYTES;
}

const char *tls_tickets_decode(struct tls_ticket_ring *ring, const uint8_t *bytes,
                               size_t byte_count)
{
    if (byte_count < RING_FILE_BYTES_MIN || memcmp(bytes, ring_magic, sizeof ring_magic) != 0) {
        return "not a file of ticket keys";
    }
    if (load_be32(bytes + 8) != RING_FILE_VERSION) {
        return "written by another version of holdfastd; remove it, clients will shake hands in full";
    }

    const uint32_t key_count = load_be32(bytes + 12);

    if (key_count > TLS_TICKET_KEYS_MAX ||
        byte_count != (size_t)RING_FILE_BYTES_MIN + (size_t)key_count * RING_KEY_BYTES ||
        load_be32(bytes + byte_count - RING_CRC_BYTES) !=
            crc32c(0, bytes, byte_count - RING_CRC_BYTES)) {
        return "damaged; remove it, clients will shake hands in full";
    }

    uint64_t previous = 0;

    for (uint32_t index = 0; index < key_count; index++) {
        const uint64_t use_from =
            load_be64(bytes + RING_HEADER_BYTES + (size_t)(index + 1) * RING_KEY_BYTES - 8);

        if (use_from < previous) {
            return "damaged (keys out of order); remove it, clients will shake hands in full";
        }
        previous = use_from;
    }

    const uint8_t *from = bytes + RING_HEADER_BYTES;

    mbedtls_platform_zeroize(ring->keys, sizeof ring->keys);
    ring->key_count = key_count;
    for (uint32_t index = 0; index < key_count; index++) {
        struct tls_ticket_key *key = &ring->keys[index];

        memcpy(key->name, from, sizeof key->name);
        memcpy(key->secret, from + TLS_TICKET_NAME_BYTES, sizeof key->secret);
        key->use_from_unix_ms = load_be64(from + RING_KEY_BYTES - 8);
        from += RING_KEY_BYTES;
    }
    return NULL;
}

static int ring_check_file(int fd, const char *path, struct hf_error *error)
{
    struct stat status;

    if (fstat(fd, &status) != 0) {
        hf_error_set(error, EX_NOINPUT, errno, "%s", path);
        return -1;
    }
    if (!S_ISREG(status.st_mode)) {
        hf_error_set(error, EX_NOINPUT, 0, "%s: not a regular file", path);
        return -1;
    }
    if (status.st_uid != geteuid()) {
        hf_error_set(error, EX_NOPERM, 0, "%s: belongs to another user (uid %u)", path,
                     (unsigned)status.st_uid);
        return -1;
    }
    if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        hf_error_set(error, EX_NOPERM, 0, "%s: others may access it (mode %04o): chmod 600 it",
                     path, (unsigned)(status.st_mode & 07777));
        return -1;
    }
    return 0;
}

int tls_tickets_load(struct tls_ticket_ring *ring, const char *path, struct hf_error *error)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    uint8_t *bytes = NULL;
    int result = -1;

    if (fd < 0) {
        if (errno == ENOENT) {
            return 1;
        }
        hf_error_set(error, EX_NOINPUT, errno, "%s", path);
        return -1;
    }
    if (ring_check_file(fd, path, error) != 0) {
        goto done;
    }
    bytes = malloc(RING_FILE_BYTES_MAX + 1);
    if (bytes == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s", path);
        goto done;
    }

    /* One byte more than may be there, so that a file that is too long doesn't pass for whole. */
    const ssize_t got = pread(fd, bytes, RING_FILE_BYTES_MAX + 1, 0);

    if (got < 0) {
        hf_error_set(error, EX_IOERR, errno, "%s: read", path);
        goto done;
    }

    const char *wrong = tls_tickets_decode(ring, bytes, (size_t)got);

    if (wrong != NULL) {
        hf_error_set(error, EX_DATAERR, 0, "%s: %s", path, wrong);
        goto done;
    }
    result = 0;

done:
    if (bytes != NULL) {
        mbedtls_platform_zeroize(bytes, RING_FILE_BYTES_MAX + 1);
        free(bytes);
    }
    close(fd);
    return result;
}

static int file_write(const char *path, const uint8_t *bytes, size_t byte_count,
                      struct hf_error *error)
{
    if (unlink(path) != 0 && errno != ENOENT) { /* left behind by a crash */
        hf_error_set(error, EX_CANTCREAT, errno, "%s: remove", path);
        return -1;
    }

    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    const char *step = NULL;

    if (fd < 0) {
        hf_error_set(error, EX_CANTCREAT, errno, "%s", path);
        return -1;
    }
    errno = EIO; /* of a short write */
    if (write(fd, bytes, byte_count) != (ssize_t)byte_count) {
        step = "write";
    } else if (fsync(fd) != 0) {
        step = "sync";
    }
    if (step != NULL) {
        hf_error_set(error, EX_IOERR, errno, "%s: %s", path, step);
        close(fd);
        unlink(path);
        return -1;
    }
    close(fd);
    return 0;
}

/* The new name must be as durable as the bytes. */
static int directory_sync(const char *path, struct hf_error *error)
{
    const char *slash = strrchr(path, '/');
    char *directory = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    const int fd = directory == NULL ? -1 : open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int result = fd < 0 || fsync(fd) != 0 ? -1 : 0;

    if (result != 0) {
        hf_error_set(error, EX_IOERR, errno, "%s: sync its directory", path);
    }
    if (fd >= 0) {
        close(fd);
    }
    free(directory);
    return result;
}

static int file_replace(const char *path, const char *fresh, const struct tls_ticket_ring *ring,
                        struct hf_error *error)
{
    uint8_t *bytes = malloc(RING_FILE_BYTES_MAX);

    if (bytes == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s", path);
        return -1;
    }

    int result = file_write(fresh, bytes, tls_tickets_encode(ring, bytes), error);

    mbedtls_platform_zeroize(bytes, RING_FILE_BYTES_MAX);
    free(bytes);
    if (result == 0 && rename(fresh, path) != 0) {
        hf_error_set(error, EX_CANTCREAT, errno, "%s: rename to %s", fresh, path);
        unlink(fresh);
        result = -1;
    }
    return result == 0 ? directory_sync(path, error) : -1;
}

int tls_tickets_save(const struct tls_ticket_ring *ring, const char *path, struct hf_error *error)
{
    char *fresh = NULL;

    if (asprintf(&fresh, "%s.new", path) < 0) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s", path);
        return -1;
    }

    const int result = file_replace(path, fresh, ring, error);

    free(fresh);
    return result;
}

int tls_tickets_refresh(struct tls_ticket_ring *ring, const char *path, uint64_t now_unix_ms,
                        struct hf_error *error)
{
    const int loaded = path == NULL ? 0 : tls_tickets_load(ring, path, error);

    if (loaded < 0) {
        hf_error_prepend(error, "ticket keys");
        return -1;
    }

    const enum tls_tickets_change change = tls_tickets_rotate(ring, now_unix_ms);

    if (change == TLS_TICKETS_FAILED) {
        hf_error_set(error, EX_OSERR, 0, "ticket keys: the kernel gives no random bytes");
        return -1;
    }
    /* Written again if somebody removed it: the next start would know none of our tickets. */
    if (path != NULL && (change == TLS_TICKETS_CHANGED || loaded == 1) &&
        tls_tickets_save(ring, path, error) != 0) {
        hf_error_prepend(error, "ticket keys");
        return -1;
    }
    return 0;
}
