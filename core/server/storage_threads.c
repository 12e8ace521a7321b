/*
 * Flusher and reader: the two threads of a core that may wait for the disk. Each sleeps on the
 * eventfd of its bell, which mailbox_send rings only if it sleeps.
 */
#include "core/server/storage_internal.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/io/thread.h"

#define FULL_RETRY_MS 1000
/* Of a CPU that it shares with a busy reactor it gets more than two fifths, about what a flush
 * needs of the whole; with less, the journal fills up. */
#define FLUSHER_NICE    1
#define AHEAD_PER_ROUND 32
/* How long a flush's memory, tens of megabytes, waits for the next one. */
#define KEEP_MS 500

static bool is_stopping(const struct storage *storage)
{
    return atomic_load_explicit(&storage->stopping, memory_order_acquire);
}

/* Sleeps until the mailbox has something, the process stops, or the time is over. */
static void sleep_on(struct storage *storage, struct bell *bell, struct mailbox *mailbox,
                     int timeout_ms)
{
    bell_prepare(bell);
    if (mailbox_empty(mailbox) && !is_stopping(storage)) {
        struct pollfd waited = { .fd = bell->fd, .events = POLLIN };
        uint64_t rings;

        if (poll(&waited, 1, timeout_ms) > 0 &&
            read(bell->fd, &rings, sizeof rings) != (ssize_t)sizeof rings) {
            /* Another wake-up emptied it: nothing is lost, the mailbox is looked at anyway. */
        }
    }
    bell_cancel(bell);
}

/* ---- reading ahead ---- */

bool storage_ahead_open(struct storage *storage, struct hf_error *error)
{
    const uint16_t count = storage->options.volume_count;

    /* An array of pointers. NOLINTNEXTLINE(bugprone-sizeof-expression) */
    storage->ahead.readers = calloc(count, sizeof *storage->ahead.readers);
    if (storage->ahead.readers == NULL) {
        hf_error_set(error, EX_OSERR, 0, "storage: no memory");
        return false;
    }
    for (uint16_t i = 0; i < count; i++) {
        if (storage->options.volumes[i] == NULL) {
            continue;
        }
        storage->ahead.readers[i] = volume_reader_open(storage->options.volumes[i], error);
        if (storage->ahead.readers[i] == NULL) {
            return false;
        }
    }
    return true;
}

void storage_ahead_close(struct storage *storage)
{
    for (uint16_t i = 0; storage->ahead.readers != NULL && i < storage->options.volume_count; i++) {
        if (storage->ahead.readers[i] != NULL) {
            volume_reader_close(storage->ahead.readers[i]);
        }
    }
    free(storage->ahead.readers);
    storage->ahead.readers = NULL;
}

/* Brings the pages of the next users into memory. False: nothing is left to do. */
static bool read_ahead(struct storage *storage)
{
    struct storage_ahead *ahead = &storage->ahead;
    bool more = false;

    (void)pthread_mutex_lock(&ahead->lock);
    if (ahead->flush != NULL) {
        const size_t count = flush_get_user_count(ahead->flush);

        for (uint32_t i = 0; i < AHEAD_PER_ROUND && ahead->next_user < count; i++) {
            struct flush_user user;

            flush_get_user(ahead->flush, ahead->next_user++, &user);
            struct volume_txn *reader = ahead->readers[user.volume];
            if (reader != NULL) {
                flush_touch(reader, &user); /* takes a snapshot of its own */
            }
        }
        more = ahead->next_user < count;
    }
    (void)pthread_mutex_unlock(&ahead->lock);
    return more;
}

static void set_ahead(struct storage *storage, const struct flush *flush)
{
    (void)pthread_mutex_lock(&storage->ahead.lock);
    storage->ahead.flush = flush;
    storage->ahead.next_user = 0;
    (void)pthread_mutex_unlock(&storage->ahead.lock);
    if (flush != NULL) {
        bell_ring(&storage->mail->reader_bell);
    }
}

/* ---- flusher ---- */

struct segment_files {
    const struct directory *directory;
    uint16_t core;
    int failed_errno; /* of the last read that failed; 0: none has */
    uint32_t failed_segment;
};

/* O_DIRECT files take aligned memory only; flush and journal_fetch give it. */
static bool read_segment(void *context, uint32_t segment, uint64_t offset, uint8_t *to,
                         size_t byte_count)
{
    struct segment_files *files = context;
    const int fd = directory_segment_fd(files->directory, files->core, segment);

    while (byte_count > 0) {
        const ssize_t got = pread(fd, to, byte_count, (off_t)offset);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            files->failed_errno = errno;
            files->failed_segment = segment;
            return false;
        }
        if (got == 0) {
            memset(to, 0, byte_count);
            return true;
        }
        to += got;
        offset += (uint64_t)got;
        byte_count -= (size_t)got;
    }
    return true;
}

/* With the file that couldn't be read, if that is why. */
static void fail_reading(struct storage *storage, const char *what, const char *text,
                         const struct segment_files *files)
{
    char path[CONFIG_TEXT_BYTES_MAX + 64];
    char reason[64];
    char whole[sizeof path + sizeof reason + HF_ERROR_TEXT_BYTES];

    if (files->failed_errno == 0) {
        storage_fail(storage, what, text, NULL);
        return;
    }
    directory_segment_path(files->directory, files->core, files->failed_segment, path, sizeof path);
    (void)snprintf(whole, sizeof whole, "%s: %s: %s", path,
                   strerror_r(files->failed_errno, reason, sizeof reason), text);
    storage_fail(storage, what, whole, storage_mend_disk);
}

/* True: everything is in the volumes, synced. False: the process stops, or must. */
static bool run_flush(struct storage *storage, struct flush *flush,
                      const struct segment_files *files)
{
    for (;;) {
        const enum flush_status status = flush_step(flush);

        atomic_store_explicit(&storage->full, status == FLUSH_FULL, memory_order_relaxed);
        switch (status) {
        case FLUSH_PLANNED:
            set_ahead(storage, flush);
            break;
        case FLUSH_SLICE:
            break;
        case FLUSH_GROUP_END:
            set_ahead(storage, NULL);
            break;
        case FLUSH_DONE:
            set_ahead(storage, NULL);
            return true;
        case FLUSH_FULL: /* the same slice again, when there may be room */
            if (is_stopping(storage)) {
                set_ahead(storage, NULL);
                return false;
            }
            sleep_on(storage, &storage->mail->flusher_bell, &storage->mail->reactor_to_flusher,
                     FULL_RETRY_MS);
            break;
        case FLUSH_BROKEN:
            set_ahead(storage, NULL);
            if (files->failed_errno != 0) {
                fail_reading(storage, "flush", flush_text(flush), files);
            } else {
                storage_fail(storage, "flush", flush_text(flush), storage_mend_disk);
            }
            return false;
        case FLUSH_DAMAGED:
            set_ahead(storage, NULL);
            storage_fail(storage, "flush", flush_text(flush), NULL);
            return false;
        }
    }
}

/* Opens storage->flush_work, or starts it anew: where one flush follows another its memory stays. */
static bool start_flush(struct storage *storage, const struct flush_config *config)
{
    struct hf_error error;
    bool started;

    if (storage->flush_work == NULL) {
        storage->flush_work = flush_open(config, &error);
        started = storage->flush_work != NULL;
    } else {
        started = flush_restart(storage->flush_work, config, &error);
    }
    if (!started) {
        storage_fail(storage, "flush", error.text, NULL);
    }
    return started;
}

static void flush_once(struct storage *storage, const struct storage_flush *order)
{
    struct segment_files files = {
        .directory = storage->options.directory,
        .core = (uint16_t)storage->options.index,
    };
    const struct flush_config config = {
        .source = { &files, read_segment },
        .identity = storage->options.journal.identity,
        .spans = order->spans,
        .span_count = order->span_count,
        .from_lsn = order->range.from_lsn,
        .upto_lsn = order->range.upto_lsn,
        .volumes = storage->options.volumes,
        .volume_count = storage->options.volume_count,
    };

    if (start_flush(storage, &config) && run_flush(storage, storage->flush_work, &files)) {
        const struct mail mail = { .kind = MAIL_FLUSHED, .number = order->range.upto_lsn };
        const bool given = post_give(&storage->mail->flusher_to_reactor, &mail);

        HF_ASSERT(given); /* one flush at a time */
    }
}

static void end_flush_work(struct storage *storage)
{
    flush_close(storage->flush_work);
    storage->flush_work = NULL;
    (void)malloc_trim(0);
}

void *storage_flusher_run(void *argument)
{
    struct storage *storage = argument;
    struct mailbox *mailbox = &storage->mail->reactor_to_flusher;

    thread_set_name("hf-flusher");
    thread_set_background(FLUSHER_NICE);
    while (!is_stopping(storage)) {
        const struct mail *mail = mailbox_take(mailbox);

        if (mail == NULL) {
            const bool busy = storage->flush_work != NULL;

            sleep_on(storage, &storage->mail->flusher_bell, mailbox, busy ? KEEP_MS : -1);
            if (busy && mailbox_empty(mailbox)) {
                end_flush_work(storage);
            }
            continue;
        }
        HF_ASSERT(mail->kind == MAIL_FLUSH);
        flush_once(storage, mail->bytes);
    }
    flush_close(storage->flush_work);
    storage->flush_work = NULL;
    return NULL;
}

/* ---- reader ---- */

static uint64_t find_place(void *context, struct user_id user, uint64_t seq)
{
    const struct storage_load *request = context;

    if (user.value != request->load.user.value) {
        return 0;
    }

    /* They are in a row, rising or falling. */
    const uint64_t from = request->load.from;
    const uint64_t i = seq > from ? seq - from : from - seq;

    return i < request->place_count && request->places[i].seq == seq ? request->places[i].pos : 0;
}

static enum read_kind read_kind_of(enum load_kind kind)
{
    switch (kind) {
    case LOAD_USER:
        return READ_USER;
    case LOAD_HEAD:
        return READ_HEAD;
    case LOAD_RANGE:
        return READ_RANGE;
    case LOAD_CHAIN:
        return READ_CHAIN;
    case LOAD_CHECKPOINT:
        return READ_CHECKPOINT;
    }
    HF_ASSERT(false);
    return READ_USER;
}

static void copy_device(const struct read_device *from, struct loaded_device *to)
{
    to->device = from->device;
    to->generation = from->state.generation;
    to->last_counter = from->state.last_counter;
    to->cursor = from->state.cursor;
    to->cursor_sver = from->state.cursor_sver;
    to->outcome_count = from->state.outcome_count;
    memcpy(to->outcomes, from->state.outcomes, from->state.outcome_count * sizeof to->outcomes[0]);
}

static void fill_answer(struct storage_load *request, const struct read_answer *answer)
{
    struct loaded *loaded = &request->answer;

    memset(loaded, 0, sizeof *loaded);
    loaded->id = request->load.id;
    loaded->status = answer->status == READ_FOUND    ? LOAD_FOUND
                     : answer->status == READ_ABSENT ? LOAD_ABSENT
                                                     : LOAD_DAMAGED;
    loaded->snapshot_lsn = answer->snapshot_lsn;
    if (answer->status != READ_FOUND) {
        return;
    }
    loaded->epoch = answer->facts.epoch;
    loaded->head = answer->facts.head;
    loaded->floor = answer->facts.floor;
    loaded->conversation_head = answer->head;
    loaded->seq = answer->seq;
    loaded->device_count = answer->device_count;
    for (uint32_t i = 0; i < answer->device_count; i++) {
        copy_device(&answer->devices[i], &request->devices[i]);
    }
    loaded->devices = request->devices;
    loaded->entry_count = answer->entry_count;
    loaded->entries_bytes = answer->entries_bytes;
    HF_ASSERT(answer->entries_bytes <= sizeof request->entries);
    memcpy(request->entries, answer->entries, answer->entries_bytes);
    loaded->entries = request->entries;
}

static void load_once(struct storage *storage, struct storage_load *request)
{
    struct segment_files files = {
        .directory = storage->options.directory,
        .core = (uint16_t)storage->options.index,
    };
    const struct load *load = &request->load;
    const struct read_request read = {
        .kind = read_kind_of(load->kind),
        .user = load->user,
        .conversation = load->conversation,
        .from = load->from,
        .to = load->to,
        .block = load->block,
        .count = load->count,
        .bytes = load->bytes < STORAGE_ANSWER_BYTES ? load->bytes : STORAGE_ANSWER_BYTES,
    };
    const struct read_places places = {
        .context = request,
        .find = find_place,
        .source = { &files, read_segment },
        .identity = storage->options.journal.identity,
        .spans = request->spans,
        .span_count = request->span_count,
    };
    struct read_answer answer = { 0 };

    reader_load(storage->reader, &read, &places, &answer);
    request->damage.found = answer.status == READ_FAILED;
    if (request->damage.found) {
        if (!answer.damaged || files.failed_errno != 0) {
            /* The kernel gave up on the disk: what it lies about next nobody knows. */
            fail_reading(storage, "read", reader_text(storage->reader), &files);
        }
        request->damage.volume = answer.volume;
        request->damage.user = load->user;
        memcpy(request->damage.row, answer.row, sizeof request->damage.row);
    }
    if (request->checkpoint_seq != 0 && !request->damage.found) {
        answer.status = READ_FOUND;
        answer.seq = request->checkpoint_seq;
    }
    fill_answer(request, &answer);
}

void *storage_reader_run(void *argument)
{
    struct storage *storage = argument;
    struct mailbox *mailbox = &storage->mail->reactor_to_reader;

    thread_set_name("hf-reader");
    while (!is_stopping(storage)) {
        const struct mail *mail = mailbox_take(mailbox);

        if (mail == NULL) {
            if (!read_ahead(storage)) {
                sleep_on(storage, &storage->mail->reader_bell, mailbox,
                         storage_expire_step(storage));
            }
            continue;
        }
        if (mail->kind == MAIL_EXPIRED_RETURN) {
            storage->expire.lent = false;
            continue;
        }
        HF_ASSERT(mail->kind == MAIL_LOAD);

        struct storage_load *request = mail->bytes;
        struct mail answer = { .kind = MAIL_LOADED, .bytes = request };

        load_once(storage, request);
        const bool given = post_give(&storage->mail->reader_to_reactor, &answer);

        HF_ASSERT(given);
    }
    return NULL;
}
