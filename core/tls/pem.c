#include "core/tls/pem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <mbedtls/platform_util.h>

enum { PEM_FILE_BYTES_MAX = 1 << 20 }; /* a system's whole bundle of authorities is a quarter */

static int pem_check_file(int fd, const char *path, enum tls_pem_kind kind, size_t *byte_count,
                          struct hf_error *error)
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
    if (kind == TLS_PEM_PRIVATE_KEY && (status.st_mode & S_IRWXO) != 0) {
        hf_error_set(error, EX_NOPERM, 0,
                     "%s: a private key that every user may access (mode %04o): chmod 600 it", path,
                     (unsigned)(status.st_mode & 07777));
        return -1;
    }
    if (status.st_size == 0 || status.st_size > PEM_FILE_BYTES_MAX) {
        hf_error_set(error, EX_DATAERR, 0, "%s: %s", path,
                     status.st_size == 0 ? "empty file" : "too long for a PEM file");
        return -1;
    }
    *byte_count = (size_t)status.st_size;
    return 0;
}

static int pem_read(int fd, struct tls_pem *pem, size_t file_bytes, const char *path,
                    struct hf_error *error)
{
    size_t got = 0;

    pem->bytes = calloc(1, file_bytes + 1);
    if (pem->bytes == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s", path);
        return -1;
    }
    pem->byte_count = file_bytes + 1;
    while (got < file_bytes) {
        const ssize_t n = read(fd, pem->bytes + got, file_bytes - got);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            hf_error_set(error, EX_IOERR, n < 0 ? errno : 0, "%s: %s", path,
                         n < 0 ? "read" : "became shorter while being read");
            tls_pem_free(pem);
            return -1;
        }
        got += (size_t)n;
    }
    if (strstr((const char *)pem->bytes, "-----BEGIN ") == NULL) {
        hf_error_set(error, EX_DATAERR, 0, "%s: holds no PEM block (-----BEGIN ...)", path);
        tls_pem_free(pem);
        return -1;
    }
    return 0;
}

int tls_pem_load(struct tls_pem *pem, const char *path, enum tls_pem_kind kind,
                 struct hf_error *error)
{
    size_t file_bytes = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    *pem = (struct tls_pem){ 0 };
    if (fd < 0) {
        hf_error_set(error, EX_NOINPUT, errno, "%s", path);
        return -1;
    }

    int result = pem_check_file(fd, path, kind, &file_bytes, error);

    if (result == 0) {
        result = pem_read(fd, pem, file_bytes, path, error);
    }
    close(fd);
    return result;
}

int tls_pem_copy(struct tls_pem *pem, const char *text, struct hf_error *error)
{
    const size_t byte_count = strlen(text) + 1;

    *pem = (struct tls_pem){ .bytes = malloc(byte_count), .byte_count = byte_count };
    if (pem->bytes == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "PEM text");
        return -1;
    }
    memcpy(pem->bytes, text, byte_count);
    return 0;
}

void tls_pem_free(struct tls_pem *pem)
{
    if (pem->bytes != NULL) {
        mbedtls_platform_zeroize(pem->bytes, pem->byte_count);
    }
    free(pem->bytes);
    *pem = (struct tls_pem){ 0 };
}
