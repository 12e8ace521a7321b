#include "core/server/storage_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "core/io/clock.h"
#include "core/io/ring_ops.h"

#define REFUSE_PERMILLE       750
#define ONLY_STREAMS_PERMILLE 900
#define PAUSE_AFTER_PERMILLE  100 /* beyond where a flush begins */
#define MARK_EVERY_NS         (1 * CLOCK_NS_PER_S)

const char storage_mend_disk[] =
    "the disk failed: mend or replace it, then start again; what was accepted is replayed";

void storage_fail(struct storage *storage, const char *what, const char *text, const char *remedy)
{
    char line[2 * CONFIG_TEXT_BYTES_MAX + HF_ERROR_TEXT_BYTES];

    (void)snprintf(line, sizeof line, "core %u: %s: %s%s%s", storage->options.index, what, text,
                   remedy != NULL ? "; " : "", remedy != NULL ? remedy : "");
    storage->options.fail(storage->options.fail_context, line);
}

static bool open_loads(struct storage *storage)
{
    storage->loads = calloc(STORAGE_LOADS_MAX, sizeof *storage->loads);
    if (storage->loads == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < STORAGE_LOADS_MAX; i++) {
        storage->free_loads[i] = &storage->loads[i];
    }
    storage->free_load_count = STORAGE_LOADS_MAX;
    return true;
}

struct storage *storage_open(const struct storage_options *options, struct hf_error *error)
{
    struct storage *storage = calloc(1, sizeof *storage);

    if (storage == NULL || !open_loads(storage)) {
        free(storage);
        hf_error_set(error, EX_OSERR, 0, "storage: no memory");
        return NULL;
    }
    storage->options = *options;
    storage->mail = &options->post->cores[options->index];
    (void)pthread_mutex_init(&storage->ahead.lock, NULL);
    atomic_init(&storage->stopping, false);
    atomic_init(&storage->full, false);

    const uint64_t journal_bytes =
        (uint64_t)options->journal.segment_bytes * options->journal.segment_count;

    storage->journal = journal_open(&options->journal, error);
    storage->entries =
        storage->journal == NULL ? NULL : index_open(INDEX_ENTRIES_FOR(journal_bytes), error);
    storage->reader =
        storage->entries == NULL
            ? NULL
            : reader_open(options->volumes, options->volume_count, STORAGE_ANSWER_BYTES, error);
    if (storage->reader == NULL || !storage_ahead_open(storage, error)) {
        storage_close(storage);
        return NULL;
    }
    storage_expire_init(storage);
    storage->flush_due_ns = clock_now_ns() + options->config->flush_interval_s * CLOCK_NS_PER_S;
    return storage;
}

void storage_close(struct storage *storage)
{
    if (storage == NULL) {
        return;
    }
    storage_ahead_close(storage);
    reader_close(storage->reader);
    index_close(storage->entries);
    journal_close(storage->journal);
    (void)pthread_mutex_destroy(&storage->ahead.lock);
    free(storage->loads);
    free(storage);
}

void storage_stop(struct storage *storage)
{
    atomic_store_explicit(&storage->stopping, true, memory_order_release);
    bell_ring(&storage->mail->flusher_bell);
    bell_ring(&storage->mail->reader_bell);
}

bool storage_open_partitions(struct storage *storage, struct engine *engine, struct hf_error *error)
{
    struct out_row *rows = NULL;
    size_t room = 0;
    bool good = true;

    for (uint32_t p = 0; good && p < PARTITION_COUNT; p++) {
        const struct partition_id partition = { (uint16_t)p };
        struct read_partition found;

        if (storage->options.volumes[p % storage->options.volume_count] == NULL) {
            continue;
        }
        reader_load_partition(storage->reader, partition, &found);
        if (found.status == READ_FAILED) {
            hf_error_set(error, EX_IOERR, 0, "partition %u: %s", p, reader_text(storage->reader));
            good = false;
            break;
        }
        if (found.out_count > room) {
            struct out_row *more = realloc(rows, found.out_count * sizeof *rows);
            if (more == NULL) {
                hf_error_set(error, EX_OSERR, 0, "partition %u: no memory", p);
                good = false;
                break;
            }
            rows = more;
            room = found.out_count;
        }
        for (size_t i = 0; i < found.out_count; i++) {
            const struct read_out *out = &found.outs[i];
            rows[i] = (struct out_row){ out->id, out->user, out->epoch, out->seq, out->to };
        }
        engine_on_partition_open(engine, partition, found.last_id, rows, found.out_count);
    }
    free(rows);
    return good;
}

void storage_get_budget(const struct storage *storage, struct engine_budget *budget)
{
    const uint32_t used = journal_used_permille(storage->journal);

    budget->append_bytes = journal_room(storage->journal);
    budget->refuse_sends = used >= REFUSE_PERMILLE;
    budget->only_streams = used >= ONLY_STREAMS_PERMILLE;
}

uint64_t storage_pause_for(uint64_t worked_ns, uint32_t used_permille, uint32_t from_permille)
{
    if (used_permille <= from_permille) {
        return 0;
    }
    if (used_permille >= REFUSE_PERMILLE) {
        return STORAGE_PAUSE_NS_MAX; /* nothing is accepted meanwhile anyway */
    }
    const uint64_t pause_ns =
        worked_ns * (used_permille - from_permille) / (REFUSE_PERMILLE - used_permille);

    return pause_ns < STORAGE_PAUSE_NS_MAX ? pause_ns : STORAGE_PAUSE_NS_MAX;
}

uint64_t storage_pause_ns(const struct storage *storage, uint64_t worked_ns)
{
    const uint32_t begun = (uint32_t)storage->options.config->flush_percent * 10;

    return storage->flushing ? storage_pause_for(worked_ns, journal_used_permille(storage->journal),
                                                 begun + PAUSE_AFTER_PERMILLE)
                             : 0;
}

void storage_append(struct storage *storage, uint64_t ticket, const uint8_t *records,
                    size_t byte_count)
{
    const uint64_t pos = journal_append(storage->journal, ticket, records, byte_count);

    index_insert_records(storage->entries, records, byte_count, pos);
}

static bool flush_is_due(const struct storage *storage, uint64_t now_ns)
{
    if (journal_unflushed_bytes(storage->journal) == 0) {
        return false;
    }
    return storage->flush_wanted || now_ns >= storage->flush_due_ns ||
           journal_used_permille(storage->journal) >= storage->options.config->flush_percent * 10;
}

/* Rotates, and hands the flusher what it needs to know; it begins when that is durable. */
static void begin_flush(struct storage *storage, uint64_t now_ns)
{
    struct storage_flush *flush = &storage->flush;

    if (!journal_flush_begin(storage->journal, &flush->range)) {
        return; /* a batch gathers: the next turn */
    }
    index_rotate(storage->entries);
    storage->flushing = true;
    storage->flush_wanted = false;
    storage->flush_due_ns = now_ns + storage->options.config->flush_interval_s * CLOCK_NS_PER_S;
    flush->span_count = journal_get_spans(storage->journal, flush->range.from_lsn,
                                          flush->range.upto_lsn, flush->spans, STORAGE_SPANS_MAX);
}

static void send_flush(struct storage *storage)
{
    const struct mail mail = { .kind = MAIL_FLUSH, .bytes = &storage->flush };

    if (storage->flushing && !storage->flush_sent && journal_flush_ready(storage->journal)) {
        storage->flush_sent = post_give(&storage->mail->reactor_to_flusher, &mail);
    }
}

static void submit_write(struct storage *storage, struct ring *ring, uint64_t tag,
                         struct reactor_stats *stats)
{
    struct journal_write write;

    if (storage->failed || !journal_next_write(storage->journal, &write)) {
        return;
    }
    storage->write_segment = write.segment;
    stat_add(&stats->journal_writes, 1);
    stat_add(&stats->journal_bytes, write.byte_count);
    ring_write_durable(ring,
                       directory_segment_fd(storage->options.directory,
                                            (uint16_t)storage->options.index, write.segment),
                       write.bytes, (uint32_t)write.byte_count, write.offset, tag);
}

void storage_pump(struct storage *storage, struct ring *ring, uint64_t tag, uint64_t now_ns,
                  struct reactor_stats *stats)
{
    if (now_ns >= storage->mark_due_ns || storage->ending) {
        storage->mark_due_ns = now_ns + MARK_EVERY_NS;
        journal_want_mark(storage->journal);
    }
    submit_write(storage, ring, tag, stats);
    if (!storage->flushing && flush_is_due(storage, now_ns)) {
        begin_flush(storage, now_ns);
        if (storage->flushing) {
            stat_add(&stats->flushes, 1);
        }
    }
    send_flush(storage);
    stat_set(&stats->index_entries, index_entry_count(storage->entries));
    stat_set(&stats->index_bytes, index_bytes(storage->entries));
    stat_set(&stats->journal_used, journal_used_permille(storage->journal) *
                                       (uint64_t)storage->options.journal.segment_bytes *
                                       storage->options.journal.segment_count / 1000);
}

bool storage_on_written(struct storage *storage, const struct ring_event *event, uint64_t *ticket)
{
    if (event->result <= 0) {
        /* Never again: after a failed sync nothing says which bytes are on the disk. */
        char path[CONFIG_TEXT_BYTES_MAX + 64];
        char reason[64];

        directory_segment_path(storage->options.directory, (uint16_t)storage->options.index,
                               storage->write_segment, path, sizeof path);
        storage->failed = true;
        storage_fail(storage, path,
                     event->result == 0 ? "durable write: nothing was written"
                                        : strerror_r(-event->result, reason, sizeof reason),
                     storage_mend_disk);
        return false;
    }

    const uint64_t before = journal_durable_ticket(storage->journal);

    journal_on_written(storage->journal, (size_t)event->result);
    *ticket = journal_durable_ticket(storage->journal);
    return *ticket != before;
}

uint64_t storage_wait_ns(const struct storage *storage, uint64_t now_ns)
{
    if (storage->flushing || journal_unflushed_bytes(storage->journal) == 0 ||
        !journal_idle(storage->journal)) {
        return RING_FOREVER; /* the flusher's mail, or a write's completion, brings it on */
    }
    return storage->flush_due_ns > now_ns ? storage->flush_due_ns - now_ns : 0;
}

void storage_want_flush(struct storage *storage)
{
    storage->flush_wanted = true;
}

/* What the reader can't look up itself, since the index is the reactor's. */
static void find_places(struct storage *storage, struct storage_load *request)
{
    const struct load *load = &request->load;
    uint64_t seq = load->from;

    request->place_count = 0;
    request->span_count = 0;
    if (load->kind != LOAD_RANGE && load->kind != LOAD_CHAIN) {
        return;
    }
    while (request->place_count < STORAGE_PLACES_MAX) {
        const uint64_t pos = index_find(storage->entries, load->user, seq);

        if (pos == 0) {
            break;
        }
        request->places[request->place_count].seq = seq;
        request->places[request->place_count].pos = pos;
        request->place_count++;
        if (load->kind == LOAD_CHAIN) {
            seq--; /* it goes on at some lower seq, which only its entry says */
        } else if (++seq > load->to) {
            break;
        }
        if (seq == 0) {
            break;
        }
    }
    if (request->place_count != 0) {
        request->span_count =
            journal_get_spans(storage->journal, 0, journal_durable_lsn(storage->journal),
                              request->spans, STORAGE_SPANS_MAX);
    }
}

void storage_load(struct storage *storage, const struct load *load)
{
    HF_ASSERT(storage->free_load_count > 0);

    struct storage_load *request = storage->free_loads[--storage->free_load_count];

    request->load = *load;
    request->checkpoint_seq =
        load->kind == LOAD_CHECKPOINT
            ? index_find_checkpoint(storage->entries, load->user, load->conversation, load->block)
            : 0;
    find_places(storage, request);

    const struct mail mail = { .kind = MAIL_LOAD, .bytes = request };
    const bool given = post_give(&storage->mail->reactor_to_reader, &mail);

    HF_ASSERT(given); /* it holds twice STORAGE_LOADS_MAX */
}

void storage_on_flushed(struct storage *storage, const struct mail *mail, uint64_t *ticket,
                        uint64_t *lsn)
{
    HF_ASSERT(storage->flushing && mail->number == storage->flush.range.upto_lsn);

    journal_flush_end(storage->journal);
    index_drop(storage->entries);
    storage->flushing = false;
    storage->flush_sent = false;
    *ticket = storage->flush.range.upto_ticket;
    *lsn = storage->flush.range.upto_lsn;
}

const struct storage_damage *storage_get_damage(const struct mail *mail)
{
    const struct storage_load *request = mail->bytes;

    return request->damage.found ? &request->damage : NULL;
}

const struct loaded *storage_get_loaded(const struct mail *mail)
{
    const struct storage_load *request = mail->bytes;

    return &request->answer;
}

void storage_end_load(struct storage *storage, const struct mail *mail)
{
    HF_ASSERT(storage->free_load_count < STORAGE_LOADS_MAX);
    storage->free_loads[storage->free_load_count++] = mail->bytes;
}

void storage_end(struct storage *storage)
{
    storage->ending = true;
}

void storage_end_expired(struct storage *storage, const struct mail *mail)
{
    const struct mail answer = { .kind = MAIL_EXPIRED_RETURN, .bytes = mail->bytes };
    const bool given = post_give(&storage->mail->reactor_to_reader, &answer);

    HF_ASSERT(given); /* one at a time, beside the loads */
}

bool storage_is_idle(const struct storage *storage)
{
    return storage->failed || (journal_idle(storage->journal) &&
                               (!storage->ending || journal_is_marked(storage->journal)));
}

bool storage_full_changed(struct storage *storage, bool *full)
{
    *full = atomic_load_explicit(&storage->full, memory_order_relaxed);
    if (*full == storage->full_told) {
        return false;
    }
    storage->full_told = *full;
    return true;
}
