#include "core/token/resume.h"

#include "tests/unit/token/scratch_dir.h"

#include <sysexits.h>

#define NOW  UINT64_C(1700000000)
#define LIFE UINT64_C(86400)

#define SECRET_1 "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define SECRET_2 "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define RING_TEXT                                                                                  \
    "holdfast resume keys 1\n7 1699990000 " SECRET_1 "\n9 1700000100 " SECRET_2 "\nend 2\n"

static const struct resume_claims claims = {
    .user = { UINT64_C(0x0102030405060708) },
    .device = { 0x090a0b0c },
    .generation = 0x0d0e0f10,
    .issued_at_unix_s = NOW,
    .expires_at_unix_s = NOW + LIFE,
};

static void ring_from(struct resume_ring *ring, const char *text)
{
    struct hf_error error;

    if (!resume_ring_parse(ring, text, strlen(text), &error)) {
        fail_msg("%s", error.text);
    }
}

/* Computed with Python: hmac.new(bytes(range(32)), token[:32], "sha256"). */
static const uint8_t vector[RESUME_TOKEN_BYTES] = {
    0x01, 0x00, 0x00, 0x07, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c,
    0x0d, 0x0e, 0x0f, 0x10, 0x00, 0x00, 0x00, 0x00, 0x65, 0x53, 0xf1, 0x00, 0x00, 0x01, 0x51, 0x80,
    0x8c, 0xd5, 0xa1, 0x51, 0x98, 0xe7, 0x98, 0x09, 0x79, 0x26, 0x40, 0xe5, 0xaf, 0x27, 0xe2, 0x60,
    0xdd, 0x98, 0x6b, 0x62, 0x53, 0x05, 0x4c, 0xad, 0xa8, 0x80, 0xa8, 0xbe, 0x17, 0x7a, 0xba, 0x04,
};

static void vector_signs_and_verifies(void **state)
{
    static struct resume_ring ring;
    struct resume_claims found;
    uint8_t token[RESUME_TOKEN_BYTES];

    (void)state;
    ring_from(&ring, RING_TEXT);
    resume_sign(&ring, &claims, token);
    assert_memory_equal(token, vector, sizeof vector);
    assert_int_equal(token_kind(token, sizeof token), TOKEN_KIND_RESUME);
    assert_int_equal(resume_verify(&ring, NOW, token, sizeof token, &found), TOKEN_OK);
    assert_int_equal(found.user.value, claims.user.value);
    assert_int_equal(found.device.value, claims.device.value);
    assert_int_equal(found.generation, claims.generation);
    assert_int_equal(found.issued_at_unix_s, NOW);
    assert_int_equal(found.expires_at_unix_s, NOW + LIFE);
}

static void every_changed_bit_is_refused(void **state)
{
    static struct resume_ring ring;
    uint8_t token[RESUME_TOKEN_BYTES];

    (void)state;
    ring_from(&ring, RING_TEXT);
    for (size_t bit = 0; bit < 8 * sizeof token; bit++) {
        struct resume_claims found;

        memcpy(token, vector, sizeof token);
        token[bit / 8] ^= (uint8_t)(1U << bit % 8);
        const enum token_status wanted = bit < 8    ? TOKEN_MALFORMED
                                         : bit < 32 ? TOKEN_UNKNOWN_KEY
                                                    : TOKEN_BAD_SIGNATURE;
        const enum token_status got = resume_verify(&ring, NOW, token, sizeof token, &found);
        /* From 7, one bit away, is no 9. */
        assert_int_equal(got, wanted);
    }
}

static void every_other_length_is_refused(void **state)
{
    static struct resume_ring ring;
    struct resume_claims found;
    uint8_t longer[RESUME_TOKEN_BYTES + 1] = { 0 };

    (void)state;
    ring_from(&ring, RING_TEXT);
    for (size_t length = 0; length < RESUME_TOKEN_BYTES; length++) {
        uint8_t *cut = malloc(length + (length == 0));

        assert_non_null(cut);
        memcpy(cut, vector, length);
        assert_int_equal(resume_verify(&ring, NOW, cut, length, &found), TOKEN_MALFORMED);
        free(cut);
    }
    memcpy(longer, vector, sizeof vector);
    assert_int_equal(resume_verify(&ring, NOW, longer, sizeof longer, &found), TOKEN_MALFORMED);
}

static void token_expires_at_its_second(void **state)
{
    static struct resume_ring ring;
    struct resume_claims found;

    (void)state;
    ring_from(&ring, RING_TEXT);
    assert_int_equal(resume_verify(&ring, NOW + LIFE - 1, vector, sizeof vector, &found), TOKEN_OK);
    assert_int_equal(resume_verify(&ring, NOW + LIFE, vector, sizeof vector, &found),
                     TOKEN_EXPIRED);
    assert_int_equal(resume_verify(&ring, UINT64_MAX, vector, sizeof vector, &found),
                     TOKEN_EXPIRED);
}

static void newest_active_key_signs(void **state)
{
    static const struct {
        uint64_t at;
        uint32_t id;
    } rows[] = {
        { 0, 7 }, { 1699990000, 7 }, { 1700000099, 7 }, { 1700000100, 9 }, { NOW + LIFE, 9 }
    };
    static struct resume_ring ring;

    (void)state;
    ring_from(&ring, RING_TEXT);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct resume_claims at = claims;
        struct resume_claims found;
        uint8_t token[RESUME_TOKEN_BYTES];

        at.issued_at_unix_s = rows[i].at;
        at.expires_at_unix_s = rows[i].at + LIFE;
        resume_sign(&ring, &at, token);
        assert_int_equal(token[3], rows[i].id);
        assert_int_equal(resume_verify(&ring, rows[i].at, token, sizeof token, &found), TOKEN_OK);
    }
}

static const struct {
    const char *name;
    const char *text;
} bad_rings[] = {
    { "empty", "" },
    { "something else", "{\"keys\":[]}" },
    { "no number", "holdfast resume keys \n" },
    { "newer", "holdfast resume keys 2\n1 0 " SECRET_1 "\nend 1\n" },
    { "no keys", "holdfast resume keys 1\nend 0\n" },
    { "no end", "holdfast resume keys 1\n1 0 " SECRET_1 "\n" },
    { "a key is missing", "holdfast resume keys 1\n1 0 " SECRET_1 "\nend 2\n" },
    { "something after the end", "holdfast resume keys 1\n1 0 " SECRET_1 "\nend 1\n\n" },
    { "secret too short", "holdfast resume keys 1\n1 0 00\nend 1\n" },
    { "secret not hex", "holdfast resume keys 1\n1 0 g" SECRET_1 "\nend 1\n" },
    { "secret too long", "holdfast resume keys 1\n1 0 0" SECRET_1 "\nend 1\n" },
    { "capital digits",
      "holdfast resume keys 1\n1 0 FF0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\nend 1\n" },
    { "leading zero", "holdfast resume keys 1\n01 0 " SECRET_1 "\nend 1\n" },
    { "id of more than 24 bits", "holdfast resume keys 1\n16777216 0 " SECRET_1 "\nend 1\n" },
    { "ids fall", "holdfast resume keys 1\n2 0 " SECRET_1 "\n1 0 " SECRET_2 "\nend 2\n" },
    { "id twice", "holdfast resume keys 1\n1 0 " SECRET_1 "\n1 0 " SECRET_2 "\nend 2\n" },
    { "times fall", "holdfast resume keys 1\n1 5 " SECRET_1 "\n2 4 " SECRET_2 "\nend 2\n" },
    { "two spaces", "holdfast resume keys 1\n1  0 " SECRET_1 "\nend 1\n" },
    { "carriage return", "holdfast resume keys 1\r\n1 0 " SECRET_1 "\r\nend 1\r\n" },
};

static void damaged_rings_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_rings / sizeof bad_rings[0]; i++) {
        struct resume_ring ring;
        struct hf_error error;

        print_message("%s\n", bad_rings[i].name);
        assert_false(
            resume_ring_parse(&ring, bad_rings[i].text, strlen(bad_rings[i].text), &error));
        assert_int_equal(error.exit_code, EX_DATAERR);
    }
    for (size_t cut = 0; cut < strlen(RING_TEXT); cut++) {
        struct resume_ring ring;
        struct hf_error error;

        assert_false(resume_ring_parse(&ring, RING_TEXT, cut, &error));
    }
}

static void ring_is_made_once_and_read_after(void **state)
{
    struct scratch_dir *dir = *state;
    static struct resume_ring first;
    static struct resume_ring second;
    struct resume_claims found;
    struct hf_error error;
    uint8_t token[RESUME_TOKEN_BYTES];

    assert_true(resume_ring_open(&first, dir->file, NOW, &error));
    resume_sign(&first, &claims, token);
    assert_true(resume_ring_open(&second, dir->file, NOW + 1, &error));
    assert_int_equal(resume_verify(&second, NOW + 1, token, sizeof token, &found), TOKEN_OK);

    assert_int_equal(chmod(dir->file, 0604), 0);
    assert_false(resume_ring_open(&second, dir->file, NOW, &error));
    assert_non_null(strstr(error.text, "mode 0604"));
    scratch_file_make(dir->file, "x", 1, 0600);
    assert_false(resume_ring_open(&second, dir->file, NOW, &error));
    assert_non_null(strstr(error.text, dir->file)); /* never replaced by a new one */
}

static void rotation_keeps_keys_while_their_tokens_live(void **state)
{
    struct scratch_dir *dir = *state;
    static struct resume_ring ring;
    static struct resume_ring reread;
    struct hf_error error;
    uint8_t token[RESUME_TOKEN_BYTES];
    struct resume_claims last = claims;
    struct resume_claims found;
    const uint64_t turn = NOW + 1000;

    assert_true(resume_ring_open(&ring, dir->file, NOW, &error));
    assert_false(resume_ring_is_due(&ring, turn - 1, 1000));
    assert_true(resume_ring_is_due(&ring, turn, 1000));
    last.issued_at_unix_s = turn - 1; /* the last that the old key signs */
    last.expires_at_unix_s = turn - 1 + LIFE;
    resume_sign(&ring, &last, token);

    assert_true(resume_ring_rotate(&ring, dir->file, turn, turn, LIFE, &error));
    assert_int_equal(ring.count, 2);
    assert_true(
        resume_ring_rotate(&ring, dir->file, turn + LIFE - 1, turn + LIFE - 1, LIFE, &error));
    assert_int_equal(ring.count, 3);
    assert_int_equal(resume_verify(&ring, turn + LIFE - 2, token, sizeof token, &found), TOKEN_OK);

    assert_true(resume_ring_rotate(&ring, dir->file, turn + LIFE, turn + LIFE, LIFE, &error));
    assert_int_equal(ring.count, 3); /* one came, one went */
    assert_int_equal(resume_verify(&ring, turn + LIFE, token, sizeof token, &found),
                     TOKEN_UNKNOWN_KEY);
    assert_true(resume_ring_open(&reread, dir->file, turn + LIFE, &error));
    assert_int_equal(reread.count, ring.count);
    assert_int_equal(reread.keys[2].id, ring.keys[2].id);
}

static void full_ring_drops_its_oldest_key(void **state)
{
    struct scratch_dir *dir = *state;
    static struct resume_ring ring;
    struct hf_error error;

    assert_true(resume_ring_open(&ring, dir->file, NOW, &error));
    for (uint32_t i = 1; i <= RESUME_KEYS_MAX + 3; i++) {
        assert_true(resume_ring_rotate(&ring, dir->file, NOW + i, NOW + i, LIFE, &error));
        assert_int_equal(ring.keys[ring.count - 1].id, i + 1);
    }
    assert_int_equal(ring.count, RESUME_KEYS_MAX);
    assert_true(resume_ring_open(&ring, dir->file, NOW, &error));
}

static void key_that_could_not_be_kept_is_never_used(void **state)
{
    struct scratch_dir *dir = *state;
    static struct resume_ring ring;
    static struct resume_ring before;
    struct hf_error error;
    char path[160];

    assert_true(resume_ring_open(&ring, dir->file, NOW, &error));
    before = ring;
    (void)snprintf(path, sizeof path, "%s/absent/keys", dir->path);
    assert_false(resume_ring_rotate(&ring, path, NOW, NOW, LIFE, &error));
    assert_memory_equal(&ring, &before, sizeof ring);
    assert_false(resume_ring_open(&ring, path, NOW, &error));
    assert_int_equal(ring.count, 0);
}

static void clock_set_back_keeps_the_ring_in_order(void **state)
{
    struct scratch_dir *dir = *state;
    static struct resume_ring ring;
    struct hf_error error;

    assert_true(resume_ring_open(&ring, dir->file, NOW, &error));
    assert_true(resume_ring_rotate(&ring, dir->file, NOW - 500, NOW - 500, LIFE, &error));
    assert_int_equal(ring.keys[1].active_at_unix_s, NOW);
    assert_true(resume_ring_open(&ring, dir->file, NOW, &error));
    assert_int_equal(ring.count, 2);
}

int main(void)
{
#define IN_SCRATCH(test)                                                                           \
    cmocka_unit_test_setup_teardown(test, scratch_dir_setup, scratch_dir_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vector_signs_and_verifies),
        cmocka_unit_test(every_changed_bit_is_refused),
        cmocka_unit_test(every_other_length_is_refused),
        cmocka_unit_test(token_expires_at_its_second),
        cmocka_unit_test(newest_active_key_signs),
        cmocka_unit_test(damaged_rings_are_refused),
        IN_SCRATCH(ring_is_made_once_and_read_after),
        IN_SCRATCH(rotation_keeps_keys_while_their_tokens_live),
        IN_SCRATCH(full_ring_drops_its_oldest_key),
        IN_SCRATCH(key_that_could_not_be_kept_is_never_used),
        IN_SCRATCH(clock_set_back_keeps_the_ring_in_order),
    };
    return cmocka_run_group_tests_name("token_resume", tests, NULL, NULL);
}
