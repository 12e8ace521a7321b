/* Payload: what was written is read; any change of it is seen; nonces are each message's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "loadgen/payload.h"

static const struct payload_run run = { { 0x1122334455667788, 0x99aabbccddeeff00 }, 77 };
static const struct payload_run other_run = { { 1, 2 }, 78 };

static void body_of_any_length_comes_back(void **state)
{
    uint8_t body[300];

    (void)state;
    for (uint16_t bytes = PAYLOAD_BYTES_MIN; bytes <= 300; bytes++) {
        const struct payload in = { { 1000000 + bytes }, bytes, 123456789012345 };
        struct payload out;

        payload_write(&run, &in, body, bytes);
        assert_int_equal(payload_read(&run, body, bytes, bytes, &out), PAYLOAD_OK);
        assert_true(out.user.value == in.user.value && out.number == in.number &&
                    out.intended_ns == in.intended_ns);
    }
}

static void other_runs_body_is_foreign(void **state)
{
    uint8_t body[100];
    const struct payload in = { { 5 }, 6, 7 };
    struct payload out;

    (void)state;
    payload_write(&other_run, &in, body, sizeof body);
    assert_int_equal(payload_read(&run, body, sizeof body, sizeof body, &out), PAYLOAD_FOREIGN);
    assert_int_equal(payload_read(&run, (const uint8_t *)"hello", 5, 100, &out), PAYLOAD_FOREIGN);
}

static void any_changed_byte_of_the_filler_is_seen(void **state)
{
    uint8_t body[101];
    const struct payload in = { { 5 }, 6, 7 };
    struct payload out;

    (void)state;
    for (size_t i = PAYLOAD_BYTES_MIN; i < sizeof body; i++) {
        payload_write(&run, &in, body, sizeof body);
        body[i] ^= 0x10;
        assert_int_equal(payload_read(&run, body, sizeof body, sizeof body, &out), PAYLOAD_DAMAGED);
    }
}

/* A body under another's name doesn't have that one's filler. */
static void changed_number_or_user_is_seen(void **state)
{
    uint8_t body[100];
    const struct payload in = { { 5 }, 6, 7 };
    struct payload out;

    (void)state;
    for (size_t i = 4; i < 16; i++) {
        payload_write(&run, &in, body, sizeof body);
        body[i] ^= 1;
        assert_int_equal(payload_read(&run, body, sizeof body, sizeof body, &out), PAYLOAD_DAMAGED);
    }
}

static void cut_body_is_damaged(void **state)
{
    uint8_t body[100];
    const struct payload in = { { 5 }, 6, 7 };
    struct payload out;

    (void)state;
    payload_write(&run, &in, body, sizeof body);
    assert_int_equal(payload_read(&run, body, 92, 100, &out), PAYLOAD_DAMAGED);
}

static void nonces_differ_by_user_number_and_run(void **state)
{
    (void)state;
    const struct nonce one = payload_nonce(&run, (struct user_id){ 9 }, 1);
    const struct nonce again = payload_nonce(&run, (struct user_id){ 9 }, 1);
    const struct nonce next = payload_nonce(&run, (struct user_id){ 9 }, 2);
    const struct nonce neighbour = payload_nonce(&run, (struct user_id){ 10 }, 1);
    const struct nonce other = payload_nonce(&other_run, (struct user_id){ 9 }, 1);

    assert_memory_equal(&one, &again, sizeof one);
    assert_memory_not_equal(&one, &next, sizeof one);
    assert_memory_not_equal(&one, &neighbour, sizeof one);
    assert_memory_not_equal(&one, &other, sizeof one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(body_of_any_length_comes_back),
        cmocka_unit_test(other_runs_body_is_foreign),
        cmocka_unit_test(any_changed_byte_of_the_filler_is_seen),
        cmocka_unit_test(changed_number_or_user_is_seen),
        cmocka_unit_test(cut_body_is_damaged),
        cmocka_unit_test(nonces_differ_by_user_number_and_run),
    };

    return cmocka_run_group_tests_name("payload", tests, NULL, NULL);
}
