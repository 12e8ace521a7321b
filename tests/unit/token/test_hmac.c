#include "core/token/hmac.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* after the four that it needs */
#include <cmocka.h>

/* A byte is repeated where the RFC repeats it. */
static const struct {
    const char *name;
    uint8_t key_fill;
    uint8_t data_fill;
    const char *key;
    size_t key_bytes;
    const char *data;
    size_t data_bytes;
    const char *tag;
} vectors[] = {
    { "RFC 4231 4.2", 0x0b, 0, NULL, 20, "Hi There", 8,
      "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
    { "RFC 4231 4.3", 0, 0, "Jefe", 4, "what do ya want for nothing?", 28,
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" },
    { "RFC 4231 4.4", 0xaa, 0xdd, NULL, 20, NULL, 50,
      "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe" },
    { "RFC 4231 4.7, a key longer than a block", 0xaa, 0, NULL, 131,
      "Test Using Larger Than Block-Size Key - Hash Key First", 54,
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54" },
};

static void vectors_give_their_tags(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        uint8_t secret[131];
        uint8_t data[64];
        uint8_t tag[HMAC_BYTES];
        char hex[2 * HMAC_BYTES + 1];
        struct hmac_key key;

        print_message("%s\n", vectors[i].name);
        memset(secret, vectors[i].key_fill, sizeof secret);
        memset(data, vectors[i].data_fill, sizeof data);
        if (vectors[i].key != NULL) {
            memcpy(secret, vectors[i].key, vectors[i].key_bytes);
        }
        if (vectors[i].data != NULL) {
            memcpy(data, vectors[i].data, vectors[i].data_bytes);
        }
        hmac_key_set(&key, secret, vectors[i].key_bytes);
        for (int again = 0; again < 2; again++) { /* a key isn't used up */
            hmac_compute(&key, data, vectors[i].data_bytes, tag);
            for (size_t j = 0; j < sizeof tag; j++) {
                hex[2 * j] = "0123456789abcdef"[tag[j] >> 4];
                hex[2 * j + 1] = "0123456789abcdef"[tag[j] & 15];
            }
            hex[sizeof hex - 1] = '\0';
            assert_string_equal(hex, vectors[i].tag);
        }
        hmac_key_clear(&key);
    }
}

static void cleared_key_is_zero(void **state)
{
    struct hmac_key key;
    struct hmac_key zero;

    (void)state;
    hmac_key_set(&key, "secret", 6);
    hmac_key_clear(&key);
    memset(&zero, 0, sizeof zero);
    assert_memory_equal(&key, &zero, sizeof key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_give_their_tags),
        cmocka_unit_test(cleared_key_is_zero),
    };
    return cmocka_run_group_tests_name("token_hmac", tests, NULL, NULL);
}
