/* What a device must not forget: changes, crashes at every byte, damage. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "client/state.h"
#include "tests/unit/client/scratch.h"

#define USER  1001
#define PEER  1002
#define DUMP  (1 << 16)
#define STEPS 12
#define NOW   UINT64_C(1764000000000)

static struct message_bytes text(const char *string)
{
    return (struct message_bytes){ (const uint8_t *)string, (uint16_t)strlen(string) };
}

static struct hf_error error;

/* All that matters, as text. */
static void dump(const struct state *state, char *out)
{
    FILE *stream = fmemopen(out, DUMP, "w");
    static uint8_t buffer[STATE_MESSAGE_BYTES];

    assert_non_null(stream);
    (void)fprintf(stream, "%s %llu %u ca=%zu login=%u resume=%u\n", state->server,
                  (unsigned long long)state->user.value, state->device.value, state->ca_bytes,
                  state->login_token_bytes, state->resume_token_bytes);
    (void)fprintf(stream, "cursor %llu/%llu seen %llu counter %llu recounting %d complete %d\n",
                  (unsigned long long)state->cursor.epoch, (unsigned long long)state->cursor.seq,
                  (unsigned long long)state->seen_seq, (unsigned long long)state->last_counter,
                  state->recounting, state->complete);
    for (const struct state_send *send = state->sends; send != NULL; send = send->next) {
        (void)fprintf(stream, "send %llu counter %llu status %u cut %d code %u seq %llu %.*s\n",
                      (unsigned long long)send->tag, (unsigned long long)send->counter,
                      send->status, send->cut, send->code, (unsigned long long)send->seq,
                      send->body_bytes, (const char *)send->body);
    }
    for (size_t i = 0; i < state->conversation_count; i++) {
        const struct state_conversation *one = &state->conversations[i];

        (void)fprintf(stream, "conversation %llu seq %llu n %llu cn %llu %d\n",
                      (unsigned long long)one->id.value, (unsigned long long)one->seq,
                      (unsigned long long)one->n, (unsigned long long)one->cn, one->counted);
    }
    for (size_t i = 0; i < state->place_count; i++) {
        struct state_message message;

        assert_int_equal(state_read(state, i, buffer, &message, &error), 0);
        (void)fprintf(stream, "entry %llu form %u", (unsigned long long)message.seq,
                      message.entry.form);
        if (message.entry.form == ENTRY_MESSAGE) {
            (void)fprintf(stream, " flags %u n %llu cn %llu prev %llu %.*s",
                          message.entry.message.flags, (unsigned long long)message.entry.message.n,
                          (unsigned long long)message.entry.message.cn,
                          (unsigned long long)message.entry.message.prev,
                          message.entry.message.body.byte_count,
                          (const char *)message.entry.message.body.bytes);
        }
        (void)fprintf(stream, "\n");
    }
    assert_int_equal(fclose(stream), 0);
}

static struct state *opened(const char *directory)
{
    struct state *state = calloc(1, sizeof *state);

    assert_non_null(state);
    if (state_open(state, directory, &error) != 0) {
        fail_msg("%s", error.text);
    }
    return state;
}

static void closed(struct state *state)
{
    state_close(state);
    free(state);
}

static void commit(struct state *state)
{
    if (state_commit(state, &error) != 0) {
        fail_msg("%s", error.text);
    }
}

static uint64_t put_send(struct state *state, const char *body, uint64_t counter)
{
    struct state_send send = { .counter = counter,
                               .conversation = { PEER },
                               .body_bytes = (uint16_t)strlen(body) };

    memset(send.nonce.bytes, (int)counter, sizeof send.nonce.bytes);
    assert_true(state_put_send(state, &send, (const uint8_t *)body));
    return send.tag;
}

static void put_peer(struct state *state, uint64_t seq, uint64_t n, uint64_t cn, const char *body)
{
    const struct entry entry = { .form = ENTRY_MESSAGE,
                                 .message = { .device = { 3 },
                                              .id = { 70 + seq },
                                              .conversation = { PEER },
                                              .sender = { PEER },
                                              .n = n,
                                              .cn = cn,
                                              .body = text(body) } };

    assert_int_equal(state_put_entry(state, seq, &entry, 0, NOW), STATE_ENTRY_OK);
}

static void put_sent(struct state *state, uint64_t seq, uint64_t counter, uint64_t tag)
{
    const struct entry entry = { .form = ENTRY_SENT,
                                 .sent = { .counter = counter, .id = { 90 + seq } } };

    assert_int_equal(state_put_entry(state, seq, &entry, tag, NOW), STATE_ENTRY_OK);
}

static void reset(struct state *state, uint64_t epoch, uint64_t seq, bool anew, bool cut)
{
    const struct message_cursor cursor = { .epoch = epoch, .seq = seq };

    if (state_reset(state, cursor, anew, cut, false, &error) != 0) {
        fail_msg("%s", error.text);
    }
}

/* One thing after another that a client does; each step is one commit. */
static void step(struct state *state, int number)
{
    switch (number) {
    case 0:
        assert_true(state_put_account(state, "chat.example:7443", (struct user_id){ USER },
                                      (struct device_id){ 7 }));
        assert_true(state_put_ca(state, (const uint8_t *)"PEM", 3));
        assert_true(state_put_login_token(state, text("login")));
        break;
    case 1:
        reset(state, 5, 0, true, false);
        break;
    case 2:
        assert_true(state_put_resume_token(state, text("resume")));
        break;
    case 3:
        assert_int_equal(put_send(state, "one", 1), 1);
        assert_int_equal(put_send(state, "two", 2), 2);
        break;
    case 4:
        assert_true(state_put_answer(state, 1, STATE_SEND_ACCEPTED, 0, 91, 1));
        break;
    case 5:
        put_sent(state, 1, 1, 0); /* found by its seq */
        put_peer(state, 2, 2, 1, "hello");
        break;
    case 6:
        put_sent(state, 3, 2, 2); /* the entry is the answer */
        break;
    case 7:
        assert_true(state_put_seen(state, 2));
        assert_int_equal(put_send(state, "three", 3), 3);
        assert_int_equal(put_send(state, "four", 4), 4);
        break;
    case 8:
        assert_true(state_put_answer(state, 3, STATE_SEND_REJECTED, CODE_BAD_CONVERSATION, 0, 0));
        break;
    case 9:
        assert_true(state_put_renumbered(state, 9));
        break;
    case 10:
        reset(state, 5, 10, false, true);
        break;
    case 11:
        put_peer(state, 11, 20, 12, "after the gap");
        assert_true(state_put_dismissed(state, 3));
        break;
    default:
        fail();
    }
    commit(state);
}

static void everything_is_there_after_reopening(void **scratch)
{
    static char before[DUMP];
    static char after[DUMP];

    for (int i = 0; i < STEPS; i++) {
        struct state *state = opened(*scratch);

        step(state, i);
        dump(state, before);
        closed(state);
        state = opened(*scratch);
        dump(state, after);
        assert_string_equal(after, before);
        closed(state);
    }
    assert_non_null(strstr(after, "entry 1 form 1 flags 1 n 1 cn 0 prev 0 one\n"));
    assert_non_null(strstr(after, "entry 3 form 1 flags 1 n 3 cn 1 prev 2 two\n"));
    assert_non_null(strstr(after, "send 4 counter 9 status 0 cut 1"));
    assert_null(strstr(after, "send 3"));
}

/* The file as it was after each step, and what was in it. */
struct history {
    char dumps[STEPS + 1][DUMP];
    size_t sizes[STEPS + 1]; /* 0: as new */
    uint8_t *bytes;
    size_t byte_count;
};

static struct history *record(const char *directory)
{
    struct history *history = calloc(1, sizeof *history);
    char path[SCRATCH_PATH_BYTES];
    struct stat stat;

    assert_non_null(history);
    scratch_path(directory, "account", path);
    struct state *state = opened(directory);
    for (int i = 0; i <= STEPS; i++) {
        if (i > 0) {
            step(state, i - 1);
        }
        dump(state, history->dumps[i]);
        (void)snprintf(path, sizeof path, "%s/account", directory);
        assert_int_equal(lstat(path, &stat), 0);
        history->sizes[i] = (size_t)stat.st_size;
    }
    closed(state);
    history->bytes = scratch_read(directory, "account", &history->byte_count);
    assert_int_equal(history->byte_count, history->sizes[STEPS]);
    return history;
}

static void forget(struct history *history)
{
    free(history->bytes);
    free(history);
}

static void any_truncation_leaves_the_last_whole_commit(void **scratch)
{
    struct history *history = record(*scratch);
    static char now[DUMP];

    for (size_t size = history->sizes[0]; size <= history->byte_count; size++) {
        int last = 0;

        while (last < STEPS && history->sizes[last + 1] <= size) {
            last++;
        }
        scratch_write(*scratch, "account", history->bytes, size);
        struct state *state = opened(*scratch);
        dump(state, now);
        assert_string_equal(now, history->dumps[last]);
        assert_int_equal(state->file.cut_bytes, size - history->sizes[last]);
        if (last < STEPS) {
            step(state, last); /* and goes on from there */
            dump(state, now);
            assert_string_equal(now, history->dumps[last + 1]);
        }
        closed(state);
    }
    forget(history);
}

static void torn_last_batch_is_cut_off_whatever_it_holds(void **scratch)
{
    struct history *history = record(*scratch);
    static char now[DUMP];

    for (size_t at = history->sizes[STEPS - 1]; at < history->byte_count; at++) {
        history->bytes[at] ^= 0x41;
        scratch_write(*scratch, "account", history->bytes, history->byte_count);
        history->bytes[at] ^= 0x41;
        struct state *state = opened(*scratch);
        dump(state, now);
        assert_string_equal(now, history->dumps[STEPS - 1]);
        closed(state);
    }
    forget(history);
}

static void damage_before_the_last_batch_is_refused_and_left_alone(void **scratch)
{
    struct history *history = record(*scratch);
    static struct state state;

    for (size_t at = 0; at < history->sizes[STEPS - 1]; at++) {
        history->bytes[at] ^= 0x41;
        scratch_write(*scratch, "account", history->bytes, history->byte_count);
        assert_int_equal(state_open(&state, *scratch, &error), -1);
        assert_int_equal(error.exit_code, EX_DATAERR);
        assert_non_null(strstr(error.text, "/account: "));

        size_t left;
        uint8_t *bytes = scratch_read(*scratch, "account", &left);
        assert_int_equal(left, history->byte_count);
        assert_memory_equal(bytes, history->bytes, at);
        free(bytes);
        history->bytes[at] ^= 0x41;
    }
    forget(history);
}

static void missing_batch_is_damage(void **scratch)
{
    struct history *history = record(*scratch);
    static struct state state;

    memmove(history->bytes + history->sizes[3], history->bytes + history->sizes[4],
            history->byte_count - history->sizes[4]);
    scratch_write(*scratch, "account", history->bytes,
                  history->byte_count - (history->sizes[4] - history->sizes[3]));
    assert_int_equal(state_open(&state, *scratch, &error), -1);
    assert_int_equal(error.exit_code, EX_DATAERR);
    assert_non_null(strstr(error.text, "a batch is missing"));
    forget(history);
}

static void batch_in_a_body_is_no_batch(void **scratch)
{
    struct history *history = record(*scratch);
    const size_t head = history->sizes[STEPS - 1];
    struct state *state = opened(*scratch);
    uint8_t body[2000];
    struct state_send send = { .counter = 30, .conversation = { PEER } };

    /* A whole good batch of a later number, as another file would have it. */
    const size_t count = history->byte_count - head;
    memcpy(body, history->bytes + head, count);
    body[15] = 200;
    send.body_bytes = (uint16_t)count;
    assert_true(state_put_send(state, &send, body));
    commit(state);
    closed(state);

    size_t size;
    uint8_t *bytes = scratch_read(*scratch, "account", &size);
    scratch_write(*scratch, "account", bytes, size - 1); /* torn */
    state = opened(*scratch);
    static char now[DUMP];
    dump(state, now);
    assert_string_equal(now, history->dumps[STEPS]);
    closed(state);
    free(bytes);
    forget(history);
}

static void file_of_a_newer_program_is_refused(void **scratch)
{
    struct history *history = record(*scratch);
    static struct state state;

    history->bytes[11] = 2;
    scratch_write(*scratch, "account", history->bytes, history->byte_count);
    assert_int_equal(state_open(&state, *scratch, &error), -1);
    assert_non_null(strstr(error.text, "use a newer program"));
    forget(history);
}

static void file_that_others_can_read_is_refused(void **scratch)
{
    char path[SCRATCH_PATH_BYTES];
    static struct state state;

    closed(opened(*scratch));
    scratch_path(*scratch, "account", path);
    struct stat stat;
    assert_int_equal(lstat(path, &stat), 0);
    assert_int_equal(stat.st_mode & 0777, 0600);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(state_open(&state, *scratch, &error), -1);
    assert_int_equal(error.exit_code, EX_NOPERM);
    assert_non_null(strstr(error.text, "chmod 600"));
}

static void directory_in_use_is_refused_with_the_process(void **scratch)
{
    struct state *state = opened(*scratch);
    static struct state other;
    char pid[32];

    assert_int_equal(state_open(&other, *scratch, &error), -1);
    assert_int_equal(error.exit_code, EX_TEMPFAIL);
    (void)snprintf(pid, sizeof pid, "process %ld;", (long)getpid());
    assert_non_null(strstr(error.text, pid));
    closed(state);
    closed(opened(*scratch));
}

static void new_log_sets_the_old_one_aside(void **scratch)
{
    struct state *state = opened(*scratch);
    char path[SCRATCH_PATH_BYTES];

    for (int i = 0; i < STEPS; i++) {
        step(state, i);
    }
    assert_true(state_put_answer(state, 4, STATE_SEND_ACCEPTED, 0, 99, 12));
    commit(state);
    reset(state, 6, 0, true, false);
    assert_int_equal(state->place_count, 0);
    assert_int_equal(state->conversation_count, 0);
    assert_int_equal(state->sends->seq, 0); /* accepted by a log that is gone */
    put_peer(state, 1, 1, 1, "new");
    commit(state);
    closed(state);

    scratch_path(*scratch, "account.5", path);
    assert_int_equal(access(path, R_OK), 0);
    state = opened(*scratch);
    assert_int_equal(state->cursor.epoch, 6);
    assert_int_equal(state->place_count, 1);
    assert_int_equal(state->last_counter, 9);
    assert_int_equal(state->last_tag, 4);
    closed(state);
}

static void garbage_is_left_behind_and_nothing_else(void **scratch)
{
    static char before[DUMP];
    static char after[DUMP];
    static uint8_t token[TOKEN_BYTES_MAX];
    struct state *state = opened(*scratch);
    char path[SCRATCH_PATH_BYTES];
    struct stat stat;

    for (int i = 0; i < STEPS; i++) {
        step(state, i);
    }
    dump(state, before);
    for (int i = 0; i < 600; i++) { /* 2.4 MB of tokens */
        assert_true(
            state_put_login_token(state, (struct message_bytes){ token, (uint16_t)sizeof token }));
        if (i % 50 == 0) {
            commit(state);
        }
    }
    assert_true(state_put_login_token(state, text("login")));
    commit(state);
    scratch_path(*scratch, "account", path);
    assert_int_equal(lstat(path, &stat), 0);
    assert_true(stat.st_size < (1 << 21));
    dump(state, after);
    assert_string_equal(after, before);
    put_peer(state, 12, 21, 13, "and it goes on");
    commit(state);
    dump(state, before);
    closed(state);
    state = opened(*scratch);
    dump(state, after);
    assert_string_equal(after, before);
    closed(state);
}

static void sent_entry_without_its_message_is_unknown(void **scratch)
{
    struct state *state = opened(*scratch);
    const struct entry entry = { .form = ENTRY_SENT, .sent = { .counter = 9, .id = { 9 } } };

    step(state, 0);
    step(state, 1);
    assert_int_equal(state_put_entry(state, 1, &entry, 0, NOW), STATE_ENTRY_UNKNOWN);
    closed(state);
}

static void session_is_given_once(void **scratch)
{
    struct state *state = opened(*scratch);
    uint8_t session[STATE_SESSION_BYTES_MAX];

    assert_int_equal(state_take_session(state, session), 0);
    state_keep_session(state, (const uint8_t *)"ticket", 6);
    assert_int_equal(state_take_session(state, session), 6);
    assert_memory_equal(session, "ticket", 6);
    assert_int_equal(state_take_session(state, session), 0);
    closed(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(everything_is_there_after_reopening),
        TEST(any_truncation_leaves_the_last_whole_commit),
        TEST(torn_last_batch_is_cut_off_whatever_it_holds),
        TEST(damage_before_the_last_batch_is_refused_and_left_alone),
        TEST(missing_batch_is_damage),
        TEST(batch_in_a_body_is_no_batch),
        TEST(file_of_a_newer_program_is_refused),
        TEST(file_that_others_can_read_is_refused),
        TEST(directory_in_use_is_refused_with_the_process),
        TEST(new_log_sets_the_old_one_aside),
        TEST(garbage_is_left_behind_and_nothing_else),
        TEST(sent_entry_without_its_message_is_unknown),
        TEST(session_is_given_once),
    };

    return cmocka_run_group_tests_name("client_state", tests, NULL, NULL);
}
