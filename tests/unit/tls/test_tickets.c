#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/disk_order.h"
#include "tests/unit/tls/fixture.h"

#define NOW       FIXTURE_NOW_UNIX_MS
#define HOUR_MS   UINT64_C(3600000)
#define MINUTE_MS UINT64_C(60000)

static struct tls_ticket_ring *ring_open(uint64_t lifetime_ms)
{
    struct tls_ticket_ring *ring = malloc(sizeof *ring);

    assert_non_null(ring);
    tls_tickets_init(ring, lifetime_ms, HOUR_MS);
    return ring;
}

static void ring_close(struct tls_ticket_ring *ring)
{
    tls_tickets_clear(ring);
    free(ring);
}

static const uint8_t nonce[TLS_TICKET_NONCE_BYTES] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };

static size_t seal(const struct tls_ticket_ring *ring, uint64_t now_unix_ms, uint8_t ticket[128])
{
    return tls_ticket_seal(ring, now_unix_ms, nonce, (const uint8_t *)"state", 5, ticket, 128);
}

static enum tls_ticket_result open_copy(const struct tls_ticket_ring *ring, uint64_t now_unix_ms,
                                        const uint8_t *ticket, size_t ticket_bytes,
                                        struct tls_ticket_opened *opened)
{
    static uint8_t copy[128];

    memcpy(copy, ticket, ticket_bytes);
    return tls_ticket_open(ring, now_unix_ms, copy, ticket_bytes, opened);
}

static void ticket_opens_with_its_age(void **state)
{
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    struct tls_ticket_opened opened;
    uint8_t ticket[128];

    (void)state;
    assert_int_equal(seal(ring, NOW, ticket), 0); /* no key yet */
    assert_false(tls_tickets_can_seal(ring, NOW));
    assert_int_equal(tls_tickets_rotate(ring, NOW), TLS_TICKETS_CHANGED);
    assert_true(tls_tickets_can_seal(ring, NOW));

    const size_t ticket_bytes = seal(ring, NOW, ticket);

    assert_int_equal(ticket_bytes, TLS_TICKET_OVERHEAD + 5);
    assert_int_equal(open_copy(ring, NOW + 1234, ticket, ticket_bytes, &opened), TLS_TICKET_OK);
    assert_int_equal(opened.age_ms, 1234);
    assert_int_equal(opened.state_bytes, 5);
    assert_memory_equal(opened.state, "state", 5);
    ring_close(ring);
}

static void ticket_without_room_is_not_sealed(void **state)
{
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    uint8_t ticket[TLS_TICKET_OVERHEAD + 5];

    (void)state;
    assert_int_equal(tls_tickets_rotate(ring, NOW), TLS_TICKETS_CHANGED);
    for (size_t capacity = 0; capacity < sizeof ticket; capacity++) {
        assert_int_equal(
            tls_ticket_seal(ring, NOW, nonce, (const uint8_t *)"state", 5, ticket, capacity), 0);
    }
    assert_int_equal(
        tls_ticket_seal(ring, NOW, nonce, (const uint8_t *)"state", 5, ticket, sizeof ticket),
        sizeof ticket);
    ring_close(ring);
}

static const struct {
    const char *name;
    int64_t later_ms;
    enum tls_ticket_result result;
} ages[] = {
    { "at once", 0, TLS_TICKET_OK },
    { "at the end of its life", INT64_C(86400000), TLS_TICKET_OK },
    { "after the end of its life", INT64_C(86400001), TLS_TICKET_EXPIRED },
    { "a clock that stepped back a little", -5000, TLS_TICKET_OK },
    { "a clock that stepped back", -5001, TLS_TICKET_EXPIRED },
};

static void ticket_is_good_for_its_lifetime_only(void **state)
{
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    struct tls_ticket_opened opened;
    uint8_t ticket[128];

    (void)state;
    assert_int_equal(tls_tickets_rotate(ring, NOW - HOUR_MS), TLS_TICKETS_CHANGED);

    const size_t ticket_bytes = seal(ring, NOW, ticket);

    for (size_t row = 0; row < sizeof ages / sizeof ages[0]; row++) {
        print_message("%s\n", ages[row].name);
        assert_int_equal(
            open_copy(ring, NOW + (uint64_t)ages[row].later_ms, ticket, ticket_bytes, &opened),
            ages[row].result);
    }
    ring_close(ring);
}

static void damaged_or_cut_ticket_is_unknown(void **state)
{
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    struct tls_ticket_ring *other = ring_open(24 * HOUR_MS);
    struct tls_ticket_opened opened;
    uint8_t ticket[128];

    (void)state;
    assert_int_equal(tls_tickets_rotate(ring, NOW), TLS_TICKETS_CHANGED);
    assert_int_equal(tls_tickets_rotate(other, NOW), TLS_TICKETS_CHANGED);

    const size_t ticket_bytes = seal(ring, NOW, ticket);

    for (size_t bit = 0; bit < 8 * ticket_bytes; bit++) {
        ticket[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(open_copy(ring, NOW, ticket, ticket_bytes, &opened), TLS_TICKET_UNKNOWN);
        ticket[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < ticket_bytes; cut++) {
        assert_int_equal(open_copy(ring, NOW, ticket, cut, &opened), TLS_TICKET_UNKNOWN);
    }
    assert_int_equal(open_copy(other, NOW, ticket, ticket_bytes, &opened), TLS_TICKET_UNKNOWN);
    assert_int_equal(open_copy(ring, NOW, ticket, ticket_bytes, &opened), TLS_TICKET_OK);
    ring_close(other);
    ring_close(ring);
}

static void key_is_in_the_ring_an_interval_before_its_use(void **state)
{
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    struct tls_ticket_ring *slow = ring_open(24 * HOUR_MS);
    struct tls_ticket_opened opened;
    uint8_t ticket[128];

    (void)state;
    for (unsigned hour = 0; hour < 100; hour++) {
        const uint64_t now = NOW + hour * HOUR_MS;

        assert_int_equal(tls_tickets_rotate(ring, now), TLS_TICKETS_CHANGED);
        assert_int_equal(tls_tickets_rotate(ring, now + HOUR_MS - 1), TLS_TICKETS_SAME);
        if (hour > 0) {
            /* Another process still has the ring of an hour ago. */
            const size_t ticket_bytes = seal(ring, now + HOUR_MS - 1, ticket);

            assert_int_equal(open_copy(slow, now + HOUR_MS - 1, ticket, ticket_bytes, &opened),
                             TLS_TICKET_OK);
        }
        memcpy(slow, ring, sizeof *slow);
        assert_true(ring->key_count <= 27); /* a day's, the current one, the next */
    }
    ring_close(slow);
    ring_close(ring);
}

static void each_interval_seals_with_a_key_of_its_own(void **state)
{
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    uint8_t before[128] = { 0 };
    uint8_t ticket[128];

    (void)state;
    for (unsigned hour = 0; hour < 30; hour++) {
        assert_int_equal(tls_tickets_rotate(ring, NOW + hour * HOUR_MS), TLS_TICKETS_CHANGED);
        assert_int_not_equal(seal(ring, NOW + hour * HOUR_MS, ticket), 0);
        assert_memory_not_equal(ticket, before, TLS_TICKET_NAME_BYTES);
        memcpy(before, ticket, sizeof before);
        assert_int_not_equal(seal(ring, NOW + hour * HOUR_MS + HOUR_MS - 1, ticket), 0);
        assert_memory_equal(ticket, before, TLS_TICKET_NAME_BYTES);
    }
    ring_close(ring);
}

static void oldest_ticket_outlives_every_rotation(void **state)
{
    struct tls_ticket_ring *ring = ring_open(TLS_TICKET_LIFETIME_MS_MAX);
    struct tls_ticket_opened opened;
    uint8_t ticket[128];

    (void)state;
    assert_int_equal(tls_tickets_rotate(ring, NOW), TLS_TICKETS_CHANGED);

    const size_t ticket_bytes = seal(ring, NOW + HOUR_MS - 1, ticket);

    for (uint64_t now = NOW + HOUR_MS; now <= NOW + HOUR_MS - 1 + TLS_TICKET_LIFETIME_MS_MAX;
         now += HOUR_MS) {
        assert_int_equal(tls_tickets_rotate(ring, now), TLS_TICKETS_CHANGED);
        assert_int_equal(open_copy(ring, now, ticket, ticket_bytes, &opened), TLS_TICKET_OK);
    }
    assert_true(ring->key_count < TLS_TICKET_KEYS_MAX);
    ring_close(ring);
}

static void rotation_survives_a_clock_that_jumps(void **state)
{
    static const int64_t jumps_h[] = { 0, 5, -5, 1000, -1000, 1, -1, 100000, -100000, 3, 200 };
    struct tls_ticket_ring *ring = ring_open(TLS_TICKET_LIFETIME_MS_MAX);
    struct tls_ticket_opened opened;
    uint64_t now = NOW;
    uint8_t ticket[128];

    (void)state;
    for (unsigned round = 0; round < 50; round++) {
        for (size_t jump = 0; jump < sizeof jumps_h / sizeof jumps_h[0]; jump++) {
            now += (uint64_t)(jumps_h[jump] * (int64_t)HOUR_MS) + 7 * MINUTE_MS;
            assert_int_not_equal(tls_tickets_rotate(ring, now), TLS_TICKETS_FAILED);
            assert_int_equal(tls_tickets_rotate(ring, now), TLS_TICKETS_SAME);
            assert_true(tls_tickets_can_seal(ring, now));
            assert_int_equal(open_copy(ring, now, ticket, seal(ring, now, ticket), &opened),
                             TLS_TICKET_OK);
            for (uint32_t key = 1; key < ring->key_count; key++) {
                assert_true(ring->keys[key - 1].use_from_unix_ms <=
                            ring->keys[key].use_from_unix_ms);
            }
        }
    }
    ring_close(ring);
}

static void late_rotation_is_forgiven_one_interval(void **state)
{
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);

    (void)state;
    assert_int_equal(tls_tickets_rotate(ring, NOW), TLS_TICKETS_CHANGED);
    assert_true(tls_tickets_can_seal(ring, NOW + 3 * HOUR_MS - 1)); /* the next key: one of two */
    assert_false(tls_tickets_can_seal(ring, NOW + 3 * HOUR_MS));
    ring_close(ring);
}

/* ---- the file */

struct directory {
    char path[64];
    char file[96];
};

static void directory_open(struct directory *directory)
{
    snprintf(directory->path, sizeof directory->path, "/tmp/holdfast-tickets-XXXXXX");
    assert_non_null(mkdtemp(directory->path));
    snprintf(directory->file, sizeof directory->file, "%s/tickets", directory->path);
}

static void directory_close(struct directory *directory)
{
    unlink(directory->file);
    assert_int_equal(rmdir(directory->path), 0); /* nothing else was left there */
}

static size_t file_read(const struct directory *directory, uint8_t *bytes, size_t capacity)
{
    const int fd = open(directory->file, O_RDONLY | O_CLOEXEC);
    const ssize_t n = read(fd, bytes, capacity);

    assert_true(n > 0);
    close(fd);
    return (size_t)n;
}

static void file_write(const struct directory *directory, const uint8_t *bytes, size_t byte_count)
{
    const int fd =
        open(directory->file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR);

    assert_int_equal(write(fd, bytes, byte_count), byte_count);
    close(fd);
}

static void ring_comes_back_from_its_file(void **state)
{
    struct directory directory;
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    struct tls_ticket_ring *again = ring_open(24 * HOUR_MS);
    struct hf_error error = { 0 };
    struct stat status;

    (void)state;
    directory_open(&directory);
    assert_int_equal(tls_tickets_load(again, directory.file, &error), 1);
    assert_int_equal(tls_tickets_refresh(ring, directory.file, NOW, &error), 0);
    assert_int_equal(stat(directory.file, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(tls_tickets_refresh(again, directory.file, NOW + MINUTE_MS, &error), 0);
    assert_memory_equal(again, ring, sizeof *ring);

    /* The next hour's key is written before it is used, and over an old file. */
    assert_int_equal(tls_tickets_refresh(ring, directory.file, NOW + HOUR_MS, &error), 0);
    assert_int_equal(tls_tickets_load(again, directory.file, &error), 0);
    assert_memory_equal(again, ring, sizeof *ring);

    /* Somebody removed it: it is written again. */
    assert_int_equal(unlink(directory.file), 0);
    assert_int_equal(tls_tickets_refresh(ring, directory.file, NOW + HOUR_MS, &error), 0);
    assert_int_equal(tls_tickets_load(again, directory.file, &error), 0);
    assert_memory_equal(again, ring, sizeof *ring);
    directory_close(&directory);
    ring_close(again);
    ring_close(ring);
}

static void ring_without_a_file_stays_in_memory(void **state)
{
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    struct hf_error error = { 0 };

    (void)state;
    assert_int_equal(tls_tickets_refresh(ring, NULL, NOW, &error), 0);
    assert_int_equal(ring->key_count, 2);
    assert_int_equal(tls_tickets_refresh(ring, NULL, NOW + HOUR_MS, &error), 0);
    assert_int_equal(ring->key_count, 3);
    ring_close(ring);
}

static void file_of_a_crash_is_overwritten(void **state)
{
    struct directory directory;
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    struct hf_error error = { 0 };
    struct directory left_behind;

    (void)state;
    directory_open(&directory);
    snprintf(left_behind.file, sizeof left_behind.file, "%s/tickets.new", directory.path);
    file_write(&left_behind, (const uint8_t *)"half a ri", 9);
    assert_int_equal(tls_tickets_refresh(ring, directory.file, NOW, &error), 0);
    assert_int_equal(tls_tickets_load(ring, directory.file, &error), 0);
    directory_close(&directory);
    ring_close(ring);
}

static void expect_refused(struct tls_ticket_ring *ring, const char *path, const char *why)
{
    struct hf_error error = { 0 };

    assert_int_equal(tls_tickets_load(ring, path, &error), -1);
    if (strstr(error.text, why) == NULL) {
        fail_msg("'%s' doesn't say '%s'", error.text, why);
    }
}

static void file_that_others_may_read_is_refused(void **state)
{
    static const mode_t modes[] = { 0640, 0604, 0620, 0610, 0601, 0777 };
    struct directory directory;
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    struct hf_error error = { 0 };

    (void)state;
    directory_open(&directory);
    assert_int_equal(tls_tickets_refresh(ring, directory.file, NOW, &error), 0);
    for (size_t mode = 0; mode < sizeof modes / sizeof modes[0]; mode++) {
        assert_int_equal(chmod(directory.file, modes[mode]), 0);
        expect_refused(ring, directory.file, "chmod 600");
    }
    assert_int_equal(unlink(directory.file), 0);
    assert_int_equal(symlink("/dev/null", directory.file), 0);
    expect_refused(ring, directory.file, "symbolic link");
    assert_int_equal(unlink(directory.file), 0);
    assert_int_equal(mkfifo(directory.file, 0600), 0);
    expect_refused(ring, directory.file, "not a regular file");
    directory_close(&directory);
    expect_refused(ring, "/proc/self", "symbolic link");
    ring_close(ring);
}

static void damaged_file_is_refused_and_changes_nothing(void **state)
{
    struct directory directory;
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    struct tls_ticket_ring *before = ring_open(24 * HOUR_MS);
    struct hf_error error = { 0 };
    uint8_t bytes[512];

    (void)state;
    directory_open(&directory);
    assert_int_equal(tls_tickets_refresh(ring, directory.file, NOW, &error), 0);
    memcpy(before, ring, sizeof *ring);

    const size_t byte_count = file_read(&directory, bytes, sizeof bytes - 1);

    for (size_t cut = 0; cut < byte_count; cut++) {
        file_write(&directory, bytes, cut);
        expect_refused(ring, directory.file, cut < 20 ? "not a file of ticket keys" : "damaged");
    }
    file_write(&directory, bytes, byte_count + 1);
    expect_refused(ring, directory.file, "damaged");
    for (size_t at = 0; at < byte_count; at++) {
        bytes[at] ^= 0x40;
        file_write(&directory, bytes, byte_count);
        expect_refused(ring, directory.file,
                       at < 8    ? "not a file of ticket keys"
                       : at < 12 ? "another version"
                                 : "damaged");
        bytes[at] ^= 0x40;
    }
    assert_memory_equal(ring, before, sizeof *ring);
    file_write(&directory, bytes, byte_count);
    assert_int_equal(tls_tickets_load(ring, directory.file, &error), 0);
    directory_close(&directory);
    ring_close(before);
    ring_close(ring);
}

static void directory_that_is_not_there_is_told(void **state)
{
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    struct hf_error error = { 0 };

    (void)state;
    assert_int_equal(tls_tickets_refresh(ring, "/tmp/holdfast-none/tickets", NOW, &error), -1);
    assert_non_null(strstr(error.text, "/tmp/holdfast-none/tickets"));
    assert_non_null(strstr(error.text, "No such file"));
    ring_close(ring);
}

static void ring_is_on_disk_before_it_is_used(void **state)
{
    struct directory directory;
    struct tls_ticket_ring *ring = ring_open(24 * HOUR_MS);
    struct hf_error error = { 0 };

    (void)state;
    directory_open(&directory);
    disk_order_begin(0);
    assert_int_equal(tls_tickets_refresh(ring, directory.file, NOW, &error), 0);
    assert_string_equal(disk_order.steps, "wsrd"); /* the bytes before their name, then the name */
    for (size_t step = 1; step <= 4; step++) {
        disk_order_begin(step);
        assert_int_equal(tls_tickets_save(ring, directory.file, &error), -1);
        assert_int_equal(error.errno_value, EIO);
    }
    disk_order_begin(0);
    assert_int_equal(tls_tickets_load(ring, directory.file, &error), 0);
    directory_close(&directory);
    ring_close(ring);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(ticket_opens_with_its_age),
    cmocka_unit_test(ticket_without_room_is_not_sealed),
    cmocka_unit_test(ticket_is_good_for_its_lifetime_only),
    cmocka_unit_test(damaged_or_cut_ticket_is_unknown),
    cmocka_unit_test(key_is_in_the_ring_an_interval_before_its_use),
    cmocka_unit_test(each_interval_seals_with_a_key_of_its_own),
    cmocka_unit_test(oldest_ticket_outlives_every_rotation),
    cmocka_unit_test(rotation_survives_a_clock_that_jumps),
    cmocka_unit_test(late_rotation_is_forgiven_one_interval),
    cmocka_unit_test(ring_comes_back_from_its_file),
    cmocka_unit_test(ring_without_a_file_stays_in_memory),
    cmocka_unit_test(file_of_a_crash_is_overwritten),
    cmocka_unit_test(file_that_others_may_read_is_refused),
    cmocka_unit_test(damaged_file_is_refused_and_changes_nothing),
    cmocka_unit_test(directory_that_is_not_there_is_told),
    cmocka_unit_test(ring_is_on_disk_before_it_is_used),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
