/* What lies under a core's reactor: its journal, its flusher, its reader. */
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "tests/sim/fail.h"
#include "tests/sim/host.h"
#include "tests/sim/volume_map.h"

#define SHORT_WRITES    50 /* in a thousand */
#define MARKS           30 /* in a thousand, of what is written */
#define FLUSH_MEMORY    65536
#define LAG_MAX         5
#define ROT_READS       60 /* in a thousand, of the reads of a step that meets rot */
#define TOUCHED_MAX     20
#define HELD_EVENTS_MAX 1500

/* ---- Journal ---- */

/* The first record is in the memory of the journal, as it was appended. */
static void check_recent(const struct core *core, const struct effect *effect, uint64_t pos)
{
    static uint8_t recent[RECORD_BYTES_MAX];
    const size_t byte_count = journal_read_recent(core->journal, pos, recent, sizeof recent);

    SIM_CHECK(byte_count > 0 && byte_count <= effect->byte_count &&
                  memcmp(recent, effect->bytes, byte_count) == 0,
              "core %u: what was appended reads otherwise", core->number);
    SIM_CHECK(journal_read_recent(core->journal, pos, recent, byte_count - 1) == 0,
              "core %u: a record in too little room", core->number);
}

void host_on_append(struct host *host, struct core *core, const struct effect *effect)
{
    struct parcel *parcel = parcel_new(effect->bytes, effect->byte_count);
    const size_t room = journal_room(core->journal);

    checks_on_append(host, effect);
    SIM_CHECK(effect->byte_count <= room, "core %u appends %zu bytes, but there is room for %zu",
              core->number, effect->byte_count, room);
    parcel->ticket = effect->ticket;
    parcels_put(&core->unwritten, parcel);

    const uint64_t pos =
        journal_append(core->journal, effect->ticket, effect->bytes, effect->byte_count);

    index_insert_records(core->index, effect->bytes, effect->byte_count, pos);
    check_recent(core, effect, pos);
}

static void say_record(const struct core *core, const struct record *record)
{
    const struct log_entry *entry = &record->entry;

    switch (record->type) {
    case RECORD_ENTRY:
        sim_say("core %u: durable: user %llx, entry %llu: %s, id %llx, conversation %llx, n %llu%s",
                core->number, (unsigned long long)entry->user.value, (unsigned long long)entry->seq,
                entry->form == LOG_ENTRY_REFUSED ? "REFUSED" : "message",
                (unsigned long long)entry->id.value, (unsigned long long)entry->conversation.value,
                (unsigned long long)entry->n,
                (entry->flags & LOG_ENTRY_FLAG_OUT) != 0 ? ", out" : "");
        break;
    case RECORD_OUT_END:
        sim_say("core %u: durable: user %llx, id %llx has ended", core->number,
                (unsigned long long)record->out_end.user.value,
                (unsigned long long)record->out_end.id.value);
        break;
    case RECORD_FLOOR:
        sim_say("core %u: durable: user %llx, floor %llu", core->number,
                (unsigned long long)record->floor.user.value,
                (unsigned long long)record->floor.floor);
        break;
    case RECORD_USER:
    case RECORD_DEVICE:
    case RECORD_REJECT:
    case RECORD_CURSOR:
        break;
    }
}

/* Every record of a ticket that has become durable. */
static void tell_durable(struct host *host, const struct core *core, const struct parcel *parcel)
{
    const uint8_t *at = parcel->bytes;
    const uint8_t *end = at + parcel->byte_count;

    while (at < end) {
        struct record record;
        size_t byte_count;
        const enum record_status status =
            record_parse(at, (size_t)(end - at), &record, &byte_count);

        SIM_CHECK(status == RECORD_OK, "the engine appended what is no record");
        if (sim_verbose()) {
            say_record(core, &record);
        }
        if (record.type == RECORD_ENTRY) {
            const struct telling telling = host_telling(host, &record.entry);

            host_check_id(host, &record.entry, true);
            ledger_tell(host->ledger, record.entry.user.value, record.entry.epoch, record.entry.seq,
                        &telling, TELLING_DURABLE);
        }
        checks_on_durable(host, &record);
        if (record.type == RECORD_FLOOR) {
            host_count(host, HAZARD_FLOORS);
            ledger_check_floor(host->ledger, record.floor.user.value, record.floor.floor,
                               host->options->retention_count);
            ledger_tell_floor(host->ledger, record.floor.user.value, record.floor.floor);
        }
        at += byte_count;
    }
}

static void written(struct host *host, struct core *core)
{
    while (core->unwritten.first != NULL &&
           core->unwritten.first->ticket <= journal_durable_ticket(core->journal)) {
        struct parcel *parcel = parcels_take(&core->unwritten);

        tell_durable(host, core, parcel);
        free(parcel);
    }
}

static void flush_begin(struct host *host, struct core *core)
{
    if (core->flushing || core->flushed_untold) {
        return;
    }
    if (!core->flush_wanted &&
        journal_used_permille(core->journal) < host->options->flush_permille &&
        !(host->calm && journal_unflushed_bytes(core->journal) > 0) &&
        !prng_chance(host->prng, host->options->flush)) {
        return;
    }
    if (!journal_flush_begin(core->journal, &core->flush_range)) {
        core->flush_wanted = core->flush_wanted && journal_unflushed_bytes(core->journal) > 0;
        return;
    }
    index_rotate(core->index);
    core->flushing = true;
    core->flush_wanted = false;
    sim_say("core %u: a flush of [%llu, %llu)", core->number,
            (unsigned long long)core->flush_range.from_lsn,
            (unsigned long long)core->flush_range.upto_lsn);
}

bool host_disk_step(struct host *host, uint16_t number)
{
    struct core *core = &host->cores[number];
    struct disk_write *write = &host->disk->writes[number];
    struct journal_write next;

    if (write->active) {
        size_t byte_count = write->byte_count;

        if (!host->calm && prng_chance(host->prng, SHORT_WRITES)) {
            byte_count = JOURNAL_BLOCK_BYTES *
                         prng_between(host->prng, 1, write->byte_count / JOURNAL_BLOCK_BYTES);
        }
        disk_complete(host->disk, number, byte_count);
        journal_on_written(core->journal, byte_count);
        written(host, core);
        return true;
    }
    if (!host->calm && prng_chance(host->prng, MARKS)) {
        journal_want_mark(core->journal);
    }
    if (!journal_next_write(core->journal, &next)) {
        flush_begin(host, core);
        return false;
    }
    if (next.offset == 0 && next.segment < host->disk->set.segment_count) {
        core->segments_begun++;
        if (core->segments_begun > host->options->segments) {
            host_count(host, HAZARD_SEGMENTS_AGAIN);
        }
    }
    disk_submit(host->disk, number, &next);
    flush_begin(host, core);
    return true;
}

/* ---- Flusher ---- */

static void flush_start(struct host *host, struct core *core)
{
    struct journal_span spans[DISK_SEGMENTS_MAX];
    struct hf_error error = { 0 };

    if (core->spare_flush == NULL) {
        core->flush_slice_records = (uint32_t)prng_between(host->prng, 1, 60);
    }
    const struct flush_config config = {
        .source = disk_source(&core->disk_core),
        .identity = core->identity,
        .spans = spans,
        .span_count = journal_get_spans(core->journal, core->flush_range.from_lsn,
                                        core->flush_range.upto_lsn, spans, DISK_SEGMENTS_MAX),
        .from_lsn = core->flush_range.from_lsn,
        .upto_lsn = core->flush_range.upto_lsn,
        .volumes = core->volumes,
        .volume_count = host->disk->manifest.volume_count,
        .memory_max = FLUSH_MEMORY,
        .slice_records = core->flush_slice_records,
        .drops_max = core->flush_slice_records,
    };

    if (core->spare_flush != NULL) {
        SIM_CHECK(flush_restart(core->spare_flush, &config, &error), "core %u: flush: %s",
                  core->number, error.text);
        core->flush = core->spare_flush;
        core->spare_flush = NULL;
        return;
    }
    core->flush = flush_open(&config, &error);
    SIM_CHECK(core->flush != NULL, "core %u: flush: %s", core->number, error.text);
}

static void set_full(struct host *host, struct core *core, bool full)
{
    for (uint16_t i = 0; i < host->disk->manifest.volume_count; i++) {
        if (core->volumes[i] != NULL) {
            volume_map_set_full(core->volumes[i], full);
        }
    }
}

/* What reading ahead does: it brings pages in, and changes nothing. */
static void touch_users(const struct host *host, const struct core *core)
{
    size_t count = flush_get_user_count(core->flush);

    count = count < TOUCHED_MAX ? count : TOUCHED_MAX;
    for (size_t i = 0; i < count; i++) {
        struct hf_error error = { 0 };
        struct flush_user user;

        flush_get_user(core->flush, i, &user);
        SIM_CHECK(user.volume < host->disk->manifest.volume_count &&
                      core->volumes[user.volume] != NULL,
                  "a flush visits volume %u, which isn't of core %u", user.volume, core->number);

        struct volume_txn *reader = volume_reader_open(core->volumes[user.volume], &error);

        SIM_CHECK(reader != NULL, "%s", error.text);
        flush_touch(reader, &user);
        volume_reader_close(reader);
    }
}

/* The flusher stops the process: whatever it met, the server may serve nothing that stands on it. */
static void flush_failed(struct host *host, const struct core *core, bool ails)
{
    SIM_CHECK(ails, "core %u: flush: %s", core->number, flush_text(core->flush));
    sim_say("core %u: flush: %s", core->number, flush_text(core->flush));
    host_count(host, HAZARD_ROT_REFUSED);
    host_crash(host, false);
}

static bool flush_is_over(struct host *host, struct core *core)
{
    struct flush_stats stats;

    flush_get_stats(core->flush, &stats);
    host->hazards->counts[HAZARD_DROPPED] += stats.entries_dropped;
    if (prng_chance(host->prng, 500)) {
        core->spare_flush = core->flush;
    } else {
        flush_close(core->flush);
    }
    core->flush = NULL;
    core->flushing = false;
    core->flushed_untold = true; /* journal and index are the reactor's: when it hears of it */
    host_count(host, HAZARD_FLUSHES);
    sim_say("core %u: flushed", core->number);
    return true;
}

bool host_flush_step(struct host *host, uint16_t number)
{
    struct core *core = &host->cores[number];

    if (!core->flushing || (!host->calm && prng_chance(host->prng, host->options->slow_flush))) {
        return false;
    }
    if (core->flush == NULL) {
        if (!journal_flush_ready(core->journal)) {
            return false;
        }
        flush_start(host, core);
        return true;
    }
    const bool full = !host->calm && *host->event < host->full_until;
    const bool ails = !host->calm && prng_chance(host->prng, host->options->rot);

    set_full(host, core, full);
    disk_set_rot(host->disk, ails ? ROT_READS : 0, true);

    const enum flush_status status = flush_step(core->flush);

    disk_set_rot(host->disk, 0, true);
    set_full(host, core, false);
    switch (status) {
    case FLUSH_PLANNED:
        touch_users(host, core);
        return true;
    case FLUSH_SLICE:
        if (!host->calm && prng_chance(host->prng, host->options->flush_crash)) {
            host_crash(host, !prng_chance(host->prng, host->options->kill));
        }
        return true;
    case FLUSH_GROUP_END:
        return true;
    case FLUSH_DONE:
        break;
    case FLUSH_FULL:
        SIM_CHECK(full, "core %u: flush: %s", number, flush_text(core->flush));
        host_count(host, HAZARD_FLUSH_FULL);
        return true;
    case FLUSH_DAMAGED:
    case FLUSH_BROKEN:
        flush_failed(host, core, ails);
        return true;
    }
    return flush_is_over(host, core);
}

/* ---- Reader ---- */

/* A user, device or head that is asked for again was evicted meanwhile. */
static void note_seen(struct host *host, struct core *core, const struct load *load)
{
    if (load->kind != LOAD_USER && load->kind != LOAD_HEAD) {
        return;
    }
    for (uint32_t i = 0; i < core->seen_count; i++) {
        const struct host_seen *seen = &core->seen[i];

        if (seen->kind == load->kind && seen->user == load->user.value &&
            seen->conversation == load->conversation.value) {
            host_count(host, HAZARD_EVICTIONS);
            return;
        }
    }
    if (core->seen_count == core->seen_capacity) {
        core->seen_capacity = core->seen_capacity * 2 + 32;
        core->seen = realloc(core->seen, core->seen_capacity * sizeof *core->seen);
        SIM_CHECK(core->seen != NULL, "out of memory");
    }
    core->seen[core->seen_count++] = (struct host_seen){
        .kind = load->kind,
        .user = load->user.value,
        .conversation = load->conversation.value,
    };
}

/* What only the reactor can tell, it tells now: where entries lie in the journal. (They may be in a
 * volume, and their segment written again, before they are read.) */
static void note_places(struct host *host, struct core *core, struct host_load *load)
{
    const struct load *asked = &load->load;
    uint64_t first = asked->from;

    if (asked->kind == LOAD_CHAIN && prng_chance(host->prng, 500)) {
        first = asked->from < HOST_PLACES_MAX ? 1 : asked->from - HOST_PLACES_MAX + 1;
    }
    load->place_first = first;
    load->flushes = core->flushes;
    if (prng_chance(host->prng, host->options->late_reads)) {
        load->held_until = *host->event + HELD_EVENTS_MAX;
        load->held_segments = core->segments_begun + host->options->segments;
    }
    load->span_count = journal_get_spans(core->journal, 0, journal_durable_lsn(core->journal),
                                         load->spans, DISK_SEGMENTS_MAX);
    for (uint64_t i = 0; i < HOST_PLACES_MAX; i++) {
        if (asked->kind == LOAD_CHAIN && first + i > asked->from) {
            break;
        }
        load->places[i] = index_find(core->index, asked->user, first + i);
    }
}

void host_on_load(struct host *host, struct core *core, const struct load *asked)
{
    struct host_load *load = NULL;

    for (size_t i = 0; i < sizeof core->loads / sizeof core->loads[0] && load == NULL; i++) {
        if (core->loads[i].step == STEP_FREE) {
            load = &core->loads[i];
        }
    }
    SIM_CHECK(load != NULL, "core %u: too many loads", core->number);
    *load = (struct host_load){ .step = STEP_ASKED, .load = *asked };
    host_count(host, HAZARD_LOADS);
    note_seen(host, core, asked);
    if (asked->kind == LOAD_RANGE || asked->kind == LOAD_CHAIN) {
        note_places(host, core, load);
    } else if (asked->kind == LOAD_CHECKPOINT) {
        load->places[0] =
            index_find_checkpoint(core->index, asked->user, asked->conversation, asked->block);
    }
}

static uint64_t find_place(void *context, struct user_id user, uint64_t seq)
{
    const struct host_load *load = context;

    return user.value == load->load.user.value && seq >= load->place_first &&
                   seq - load->place_first < HOST_PLACES_MAX
               ? load->places[seq - load->place_first]
               : 0;
}

static void keep_devices(struct host_load *load, const struct read_answer *answer)
{
    load->devices = calloc(answer->device_count + 1U, sizeof *load->devices);
    SIM_CHECK(load->devices != NULL, "out of memory");
    for (uint32_t i = 0; i < answer->device_count; i++) {
        const struct schema_device *state = &answer->devices[i].state;

        load->devices[i] = (struct loaded_device){
            .device = answer->devices[i].device,
            .generation = state->generation,
            .last_counter = state->last_counter,
            .cursor = state->cursor,
            .cursor_sver = state->cursor_sver,
            .outcome_count = state->outcome_count,
        };
        memcpy(load->devices[i].outcomes, state->outcomes, sizeof state->outcomes);
    }
}

/* The reader's bytes are good until its next answer: this one waits longer. */
static void keep_answer(struct host_load *load, const struct read_answer *answer)
{
    struct loaded *loaded = &load->loaded;

    loaded->status = answer->status == READ_FOUND    ? LOAD_FOUND
                     : answer->status == READ_ABSENT ? LOAD_ABSENT
                                                     : LOAD_FAILED;
    loaded->snapshot_lsn = answer->snapshot_lsn;
    if (answer->status != READ_FOUND) {
        return;
    }
    if (load->load.kind == LOAD_USER) {
        keep_devices(load, answer);
        loaded->epoch = answer->facts.epoch;
        loaded->head = answer->facts.head;
        loaded->floor = answer->facts.floor;
        loaded->device_count = answer->device_count;
        loaded->devices = load->devices;
    }
    loaded->conversation_head = answer->head;
    loaded->seq = answer->seq;
    if (answer->entries_bytes > 0) {
        load->entries = malloc(answer->entries_bytes);
        SIM_CHECK(load->entries != NULL, "out of memory");
        memcpy(load->entries, answer->entries, answer->entries_bytes);
        loaded->entry_count = answer->entry_count;
        loaded->entries = load->entries;
        loaded->entries_bytes = answer->entries_bytes;
    }
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
    return READ_USER;
}

/* Readers may have begun before the last commits. */
static void set_lag(struct host *host, struct core *core, uint32_t lag)
{
    for (uint16_t i = 0; i < host->disk->manifest.volume_count; i++) {
        if (core->volumes[i] != NULL) {
            volume_map_set_lag(core->volumes[i], lag);
        }
    }
}

static void read_now(struct host *host, struct core *core, struct host_load *load)
{
    const bool stale = !host->calm && prng_chance(host->prng, host->options->stale_load);
    const bool ails = !host->calm && prng_chance(host->prng, host->options->rot);
    const struct load *asked = &load->load;
    const struct read_request request = {
        .kind = read_kind_of(asked->kind),
        .user = asked->user,
        .conversation = asked->conversation,
        .from = asked->from,
        .to = asked->to,
        .block = asked->block,
        .count = asked->count,
        .bytes = asked->bytes,
    };
    const struct read_places places = {
        .context = load,
        .find = find_place,
        .source = disk_source(&core->disk_core),
        .identity = core->identity,
        .spans = load->spans,
        .span_count = load->span_count,
    };
    struct read_answer answer;

    if (stale) {
        set_lag(host, core, (uint32_t)prng_between(host->prng, 1, LAG_MAX));
    }
    disk_set_rot(host->disk, ails ? ROT_READS : 0, true);
    reader_load(core->reader, &request,
                asked->kind == LOAD_RANGE || asked->kind == LOAD_CHAIN ? &places : NULL, &answer);
    disk_set_rot(host->disk, 0, true);
    set_lag(host, core, 0);
    SIM_CHECK(ails || answer.status != READ_FAILED, "core %u: load: %s", core->number,
              reader_text(core->reader));
    host->hazards->counts[HAZARD_ROT_READ] += answer.status == READ_FAILED ? 1 : 0;
    if (stale && answer.snapshot_lsn < asked->need_lsn) {
        host_count(host, HAZARD_LOADS_STALE);
    }
    keep_answer(load, &answer);
    sim_say("core %u: load %u, kind %d of user %llx (%llx), from %llu to %llu: status %d, %u "
            "entries, snapshot %llu of %llu",
            core->number, asked->id, (int)asked->kind, (unsigned long long)asked->user.value,
            (unsigned long long)asked->conversation.value, (unsigned long long)asked->from,
            (unsigned long long)asked->to, (int)answer.status, answer.entry_count,
            (unsigned long long)answer.snapshot_lsn, (unsigned long long)asked->need_lsn);
}

bool host_load_step(struct host *host, uint16_t number)
{
    struct core *core = &host->cores[number];
    const size_t count = sizeof core->loads / sizeof core->loads[0];
    const size_t first = prng_below(host->prng, count);

    if (!host->calm && prng_chance(host->prng, host->options->slow_reader)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        struct host_load *load = &core->loads[(first + i) % count];

        if (load->step != STEP_ASKED || (!host->calm && *host->event < load->held_until &&
                                         core->segments_begun < load->held_segments)) {
            continue;
        }
        load->step = STEP_READ;
        load->loaded.id = load->load.id;
        if (!host->calm && prng_chance(host->prng, host->options->failed_load)) {
            load->loaded.status = LOAD_FAILED;
            host_count(host, HAZARD_LOADS_FAILED);
        } else if (load->load.kind == LOAD_CHECKPOINT && load->places[0] != 0) {
            load->loaded.status = LOAD_FOUND;
            load->loaded.seq = load->places[0];
            load->loaded.snapshot_lsn = UINT64_MAX;
            host_count(host, HAZARD_LOADS_JOURNAL);
        } else {
            read_now(host, core, load);
            if (load->place_first != 0 && load->flushes != core->flushes) {
                host_count(host, HAZARD_LOADS_LATE);
            }
            host_count(host, load->place_first != 0 && load->places[0] != 0 ? HAZARD_LOADS_JOURNAL
                                                                            : HAZARD_LOADS_VOLUME);
        }
        return true;
    }
    return false;
}
