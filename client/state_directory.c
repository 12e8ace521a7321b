/* The directory of a state: its lock, reading the account file, writing it anew, the TLS session.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "client/state.h"
#include "client/state_private.h"
#include "core/base/bytes.h"
#include "core/base/check.h"

/* The file is written anew when more than this, and more than half of it, is out of date. */
#define GARBAGE_BYTES_MAX (UINT64_C(1) << 20)

#define PATH_BYTES BATCH_PATH_BYTES

static void path_of(const struct state *state, const char *name, char path[PATH_BYTES])
{
    (void)snprintf(path, PATH_BYTES, "%s/%s", state->directory, name);
}

/* ---- opening */

static int make_directory(const char *directory, struct hf_error *error)
{
    char path[sizeof((struct state *)0)->directory];

    (void)snprintf(path, sizeof path, "%s", directory);
    for (char *slash = path + 1;; slash++) {
        const char stood = *slash;

        if (stood != '/' && stood != '\0') {
            continue;
        }
        *slash = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST) {
            hf_error_set(error, EX_CANTCREAT, errno, "%s: make the directory", path);
            return -1;
        }
        if (stood == '\0') {
            return 0;
        }
        *slash = stood;
    }
}

static int take_lock(struct state *state, struct hf_error *error)
{
    char path[PATH_BYTES];
    char pid[24] = "";

    path_of(state, "lock", path);
    state->lock_ = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (state->lock_ < 0) {
        hf_error_set(error, EX_CANTCREAT, errno, "%s", path);
        return -1;
    }
    if (flock(state->lock_, LOCK_EX | LOCK_NB) != 0) {
        const int failed = errno;
        const ssize_t got = pread(state->lock_, pid, sizeof pid - 1, 0);

        pid[got > 0 ? strcspn(pid, "\n") : 0] = '\0';
        if (failed == EWOULDBLOCK) {
            hf_error_set(error, EX_TEMPFAIL, 0,
                         "%s: in use by process %s; end it, or give each device a directory "
                         "of its own",
                         state->directory, pid[0] != '\0' ? pid : "?");
        } else {
            hf_error_set(error, EX_OSERR, failed, "%s: lock", path);
        }
        return -1;
    }

    const int count = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());

    /* Only for the words above: nothing depends on it. */
    if (ftruncate(state->lock_, 0) == 0) {
        (void)!pwrite(state->lock_, pid, (size_t)count, 0);
    }
    return 0;
}

static uint64_t live_bytes(const struct state *state)
{
    uint64_t live = state->live_bytes_ + state->ca_bytes;

    for (const struct state_send *send = state->sends; send != NULL; send = send->next) {
        live += SEND_HEAD_BYTES + (uint64_t)send->body_bytes;
    }
    return live;
}

static bool has_garbage(const struct state *state)
{
    const uint64_t live = live_bytes(state);

    return state->file.end > live && state->file.end - live > GARBAGE_BYTES_MAX &&
           state->file.end - live > live;
}

static int load(struct state *state, struct hf_error *error)
{
    struct batch_record record;
    int loaded;

    while ((loaded = batch_file_load_next(&state->file, &record, error)) > 0) {
        errno = 0;
        if (!state_apply(state, &record)) {
            if (errno == ENOMEM) {
                hf_error_set(error, EX_OSERR, ENOMEM, "%s", state->file.path);
            } else {
                hf_error_set(error, EX_DATAERR, 0,
                             "%s: damaged at byte %llu (a record of type %u makes no sense there). "
                             "Nothing was changed. Messages are still on the server: restore the "
                             "file from a backup, or move it away and log in again",
                             state->file.path, (unsigned long long)record.offset, record.type);
            }
            return -1;
        }
    }
    return loaded;
}

int state_open(struct state *state, const char *directory, struct hf_error *error)
{
    char path[PATH_BYTES];

    memset(state, 0, sizeof *state);
    state->lock_ = -1;
    state->file.descriptor = -1;
    if (directory[0] == '\0' || strlen(directory) >= sizeof state->directory) {
        hf_error_set(error, EX_USAGE, ENAMETOOLONG, "%s", directory);
        return -1;
    }
    (void)snprintf(state->directory, sizeof state->directory, "%s", directory);
    path_of(state, "account", path);
    if (make_directory(directory, error) != 0 || take_lock(state, error) != 0 ||
        batch_file_open(&state->file, path, error) != 0 || load(state, error) != 0 ||
        (has_garbage(state) && state_compact(state, error) != 0)) {
        state_close(state);
        return -1;
    }
    return 0;
}

void state_close(struct state *state)
{
    batch_file_close(&state->file);
    state_forget_log(state);
    state_forget_sends(state);
    free(state->ca);
    state->ca = NULL;
    if (state->lock_ >= 0) {
        (void)close(state->lock_);
        state->lock_ = -1;
    }
    explicit_bzero(state->login_token, sizeof state->login_token);
    explicit_bzero(state->resume_token, sizeof state->resume_token);
}

int state_commit(struct state *state, struct hf_error *error)
{
    if (batch_file_commit(&state->file, error) != 0) {
        return -1;
    }
    return has_garbage(state) ? state_compact(state, error) : 0;
}

/* ---- writing the file anew */

struct copy {
    const struct state *state;
    struct batch_file *made;
    struct hf_error *error;
    uint8_t *buffer;
};

static int put(const struct copy *copy, enum record_type type, const void *head, size_t head_bytes,
               const void *body, size_t body_bytes, uint64_t *offset)
{
    struct batch_record record;

    if (batch_file_waiting(copy->made) > BATCH_BYTES_MAX / 4 &&
        batch_file_commit(copy->made, copy->error) != 0) {
        return -1;
    }
    if (!batch_file_add(copy->made, (uint8_t)type, head, head_bytes, body, body_bytes, &record)) {
        hf_error_set(copy->error, EX_OSERR, ENOMEM, "%s", copy->made->path);
        return -1;
    }
    if (offset != NULL) {
        *offset = record.offset;
    }
    return 0;
}

static int put_reset(const struct copy *copy, uint64_t seq, uint8_t flags)
{
    uint8_t head[RESET_BYTES];

    store_be64(head, copy->state->cursor.epoch);
    store_be64(head + 8, seq);
    store_be64(head + 16, copy->state->cursor.sver);
    head[24] = flags;
    return put(copy, RECORD_RESET, head, sizeof head, NULL, 0, NULL);
}

static int put_account(const struct copy *copy)
{
    const struct state *state = copy->state;
    uint8_t head[ACCOUNT_HEAD_BYTES];

    if (state->server[0] == '\0') {
        return 0;
    }
    store_be64(head, state->user.value);
    store_be32(head + 8, state->device.value);
    if (put(copy, RECORD_ACCOUNT, head, sizeof head, state->server, strlen(state->server), NULL) !=
            0 ||
        put(copy, RECORD_CA, NULL, 0, state->ca, state->ca_bytes, NULL) != 0 ||
        put(copy, RECORD_LOGIN_TOKEN, NULL, 0, state->login_token, state->login_token_bytes,
            NULL) != 0) {
        return -1;
    }
    return put(copy, RECORD_RESUME_TOKEN, NULL, 0, state->resume_token, state->resume_token_bytes,
               NULL);
}

/* The entries, with a RESET wherever some are missing; `places` gets where they lie now. */
static int put_log(const struct copy *copy, struct state_place *places)
{
    const struct state *state = copy->state;
    uint64_t seq = state->base_seq_;

    if (state->cursor.epoch == 0) {
        return 0;
    }
    if (put_reset(copy, seq, RESET_ANEW) != 0) {
        return -1;
    }
    for (size_t i = 0; i < state->place_count; i++) {
        struct batch_record record;

        if (state->places[i].seq != seq + 1 &&
            put_reset(copy, state->places[i].seq - 1, RESET_CUT) != 0) {
            return -1;
        }
        if (batch_file_read(&state->file, state->places[i].offset, copy->buffer,
                            STATE_MESSAGE_BYTES, &record, copy->error) != 0 ||
            put(copy, RECORD_ENTRY, record.bytes, record.byte_count, NULL, 0, &places[i].offset) !=
                0) {
            return -1;
        }
        seq = places[i].seq = state->places[i].seq;
    }
    return seq != state->cursor.seq ? put_reset(copy, state->cursor.seq, RESET_CUT) : 0;
}

static int put_sends(const struct copy *copy)
{
    const struct state *state = copy->state;
    uint8_t counter[COUNTER_BYTES];
    uint8_t seen[8];

    for (const struct state_send *send = state->sends; send != NULL; send = send->next) {
        uint8_t head[SEND_HEAD_BYTES];
        uint8_t answer[ANSWER_BYTES];

        state_encode_send(send, head);
        state_encode_answer(send, answer);
        if (put(copy, RECORD_SEND, head, sizeof head, send->body, send->body_bytes, NULL) != 0 ||
            put(copy, RECORD_ANSWER, answer, sizeof answer, NULL, 0, NULL) != 0) {
            return -1;
        }
    }
    store_be64(counter, state->last_counter);
    store_be64(counter + 8, state->last_tag);
    counter[16] = state->recounting;
    store_be64(seen, state->seen_seq);
    if (put(copy, RECORD_COUNTER, counter, sizeof counter, NULL, 0, NULL) != 0) {
        return -1;
    }
    return put(copy, RECORD_SEEN, seen, sizeof seen, NULL, 0, NULL);
}

int state_compact(struct state *state, struct hf_error *error)
{
    struct batch_file made;
    struct copy copy = { .state = state, .made = &made, .error = error };
    struct state_place *places = malloc((state->place_count + 1) * sizeof *places);
    int result = -1;

    HF_ASSERT(batch_file_waiting(&state->file) == 0);
    copy.buffer = malloc(STATE_MESSAGE_BYTES);
    if (places == NULL || copy.buffer == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s", state->file.path);
    } else if (batch_file_open_new(&made, state->file.path, error) == 0) {
        if (put_account(&copy) == 0 && put_log(&copy, places) == 0 && put_sends(&copy) == 0 &&
            batch_file_commit(&made, error) == 0) {
            result = batch_file_replace(&state->file, &made, error);
        }
        batch_file_close(&made);
    }
    if (result == 0) {
        free(state->places);
        state->places = places;
        state->place_room_ = state->place_count + 1;
    } else {
        free(places);
        state->file.broken = true; /* nobody knows which of the two files stands there */
    }
    free(copy.buffer);
    return result;
}

/* ---- another log */

/* Leaves what is here under a name of its own: the server's log is the truth now. */
static int set_aside(const struct state *state, struct hf_error *error)
{
    char name[40];
    char path[PATH_BYTES];

    (void)snprintf(name, sizeof name, "account.%llu", (unsigned long long)state->cursor.epoch);
    path_of(state, name, path);
    (void)unlink(path);
    if (link(state->file.path, path) != 0) {
        hf_error_set(error, EX_CANTCREAT, errno, "%s", path);
        return -1;
    }
    return 0;
}

int state_reset(struct state *state, struct message_cursor cursor, bool anew, bool cut,
                bool recounting, struct hf_error *error)
{
    const bool aside = anew && state->place_count > 0;
    uint8_t head[RESET_BYTES];

    if (aside && (state_commit(state, error) != 0 || set_aside(state, error) != 0)) {
        return -1;
    }
    store_be64(head, cursor.epoch);
    store_be64(head + 8, cursor.seq);
    store_be64(head + 16, cursor.sver);
    head[24] = (uint8_t)((anew ? RESET_ANEW : 0) | (cut ? RESET_CUT : 0) |
                         (recounting ? RESET_RECOUNTING : 0));
    if (!state_put(state, RECORD_RESET, head, sizeof head, NULL, 0)) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s", state->file.path);
        return -1;
    }
    if (batch_file_commit(&state->file, error) != 0) {
        return -1;
    }
    return aside ? state_compact(state, error) : 0; /* else the copy would go on to grow */
}

/* ---- the TLS session */

size_t state_take_session(struct state *state, uint8_t out[STATE_SESSION_BYTES_MAX])
{
    char path[PATH_BYTES];
    size_t session_bytes = 0;

    path_of(state, "session", path);

    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (descriptor >= 0) {
        const ssize_t got = read(descriptor, out, STATE_SESSION_BYTES_MAX);

        session_bytes = got > 0 ? (size_t)got : 0;
        (void)close(descriptor);
        (void)unlink(path);
    }
    return session_bytes;
}

void state_keep_session(struct state *state, const uint8_t *session, size_t session_bytes)
{
    char path[PATH_BYTES];
    char made[PATH_BYTES];

    path_of(state, "session", path);
    path_of(state, "session.new", made);

    const int descriptor = open(made, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (descriptor >= 0) {
        const bool whole = write(descriptor, session, session_bytes) == (ssize_t)session_bytes;

        (void)close(descriptor);
        if (!whole || rename(made, path) != 0) {
            (void)unlink(made);
        }
    }
}
