#include "core/token/random.h"

#include <errno.h>
#include <mbedtls/entropy.h>
#include <sys/random.h>

int token_random(void *context, unsigned char *bytes, size_t byte_count)
{
    (void)context;
    while (byte_count > 0) {
        const ssize_t got = getrandom(bytes, byte_count, 0);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return MBEDTLS_ERR_ENTROPY_SOURCE_FAILED;
        }
        bytes += got;
        byte_count -= (size_t)got;
    }
    return 0;
}
