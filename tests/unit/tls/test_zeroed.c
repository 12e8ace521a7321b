/*
 * No key outlives its connection: free() is wrapped (see meson.build), and no block may be given
 * back to the heap with key material in it.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/tls/fixture.h"

void real_free(void *block) __asm__("__real_free");
void watched_free(void *block) __asm__("__wrap_free");

enum { WATCHED_MAX = 64, WATCHED_BYTES = 12 }; /* as much of each as an IV has */

static uint8_t watched[WATCHED_MAX][WATCHED_BYTES];
static size_t watched_count;
static size_t found;
static size_t looked_at;

static void watch(const uint8_t *secret)
{
    assert_true(watched_count < WATCHED_MAX);
    memcpy(watched[watched_count++], secret, WATCHED_BYTES);
}

static void watch_keys(const struct tls_keys *keys)
{
    watch(keys->rx.secret);
    watch(keys->tx.secret);
    watch(keys->rx.aead.key);
    watch(keys->tx.aead.key);
    watch(keys->rx.aead.iv);
    watch(keys->tx.aead.iv);
}

void watched_free(void *block)
{
    const size_t block_bytes = block == NULL ? 0 : malloc_usable_size(block);

    for (size_t index = 0; index < watched_count; index++) {
        found +=
            block_bytes != 0 && memmem(block, block_bytes, watched[index], WATCHED_BYTES) != NULL;
    }
    looked_at++;
    real_free(block);
}

static void watching_works(void **state)
{
    const uint8_t secret[WATCHED_BYTES] = "mellon";
    uint8_t *block = malloc(100);

    (void)state;
    memset(block, 0, 100);
    memcpy(block + 50, secret, sizeof secret);
    __asm__ volatile("" : : "r"(block) : "memory"); /* or the stores are left out before free */
    watch(secret);
    free(block);
    assert_int_equal(found, 1);
    watched_count = 0;
    found = 0;
}

static void ended_connections_leave_no_key_on_the_heap(void **state)
{
    static const uint16_t suites[] = { AEAD_AES_128_GCM_SHA256, AEAD_AES_256_GCM_SHA384,
                                       AEAD_CHACHA20_POLY1305_SHA256 };
    uint8_t session[TLS_SESSION_BYTES_MAX];

    (void)state;
    for (size_t suite = 0; suite < 3; suite++) {
        struct fixture *fixture =
            fixture_open((struct fixture_options){ .tickets = 1, .suite = suites[suite] });
        size_t session_bytes = 0;

        watch(fixture->ring.keys[0].secret);
        for (int round = 0; round < 2; round++) {
            struct link *link = link_open(fixture, session, session_bytes, SIZE_MAX);
            struct tls_opened opened;
            uint8_t record[128];
            const struct iovec part = { .iov_base = (char[]){ "data" }, .iov_len = 4 };

            watch_keys(&link->client.keys);
            session_bytes = link_session(fixture, link, session, sizeof session);
            assert_int_not_equal(session_bytes, 0);
            for (int update = 0; update < 2; update++) {
                size_t at = 0;
                const size_t sealed_bytes = tls_record_seal(&fixture->core, &link->client.keys,
                                                            &part, 1, record, sizeof record);

                do {
                    tls_record_open(&fixture->core, &link->server.keys, record + at,
                                    sealed_bytes - at, &opened);
                    at += opened.record_bytes;
                } while (opened.result == TLS_OPEN_HANDLED);
                assert_int_equal(opened.result, TLS_OPEN_DATA);
                watch(link->client.keys.tx.aead.key);
                tls_record_update(&link->client.keys, false);
            }
            link_close(fixture, link);
        }
        fixture_close(fixture);
    }
    assert_true(looked_at > 100);
    assert_int_equal(found, 0);
}

static void abandoned_handshake_leaves_no_key_on_the_heap(void **state)
{
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });
    struct link *link = calloc(1, sizeof *link);

    (void)state;
    link->client.handshake =
        tls_handshake_connect(fixture->client, FIXTURE_NAME, NULL, 0, FIXTURE_NOW_UNIX_MS);
    link->server.handshake = tls_handshake_accept(fixture->server);
    end_step(&link->client, &link->server.in, SIZE_MAX, FIXTURE_NOW_UNIX_MS);
    end_step(&link->server, &link->client.in, SIZE_MAX, FIXTURE_NOW_UNIX_MS);
    assert_int_equal(end_step(&link->client, &link->server.in, SIZE_MAX, FIXTURE_NOW_UNIX_MS),
                     TLS_HANDSHAKE_DONE);
    tls_handshake_take_keys(link->client.handshake, &link->client.keys);
    watch_keys(&link->client.keys); /* the server has exported the same secrets, and goes no on */
    tls_handshake_end(link->server.handshake);
    link_close(fixture, link);
    fixture_close(fixture);
    assert_int_equal(found, 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(watching_works),
    cmocka_unit_test(ended_connections_leave_no_key_on_the_heap),
    cmocka_unit_test(abandoned_handshake_leaves_no_key_on_the_heap),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
