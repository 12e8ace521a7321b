#include "tests/unit/engine/host.h"

#include <stdlib.h>
#include <string.h>

/* Loads */

static void load_device(struct loaded *loaded, struct loaded_device *devices, struct device_id id,
                        struct loaded_device **device)
{
    for (uint32_t i = 0; i < loaded->device_count; i++) {
        if (devices[i].device.value == id.value) {
            *device = &devices[i];
            return;
        }
    }
    assert_true(loaded->device_count < DEVICES_PER_USER_MAX);
    *device = &devices[loaded->device_count++];
    **device = (struct loaded_device){ .device = id };
}

static void load_outcome(struct loaded_device *device, const struct outcome *outcome)
{
    if (device->outcome_count == OUTCOMES_KEPT) {
        memmove(device->outcomes, device->outcomes + 1,
                (OUTCOMES_KEPT - 1) * sizeof device->outcomes[0]);
        device->outcome_count--;
    }
    device->outcomes[device->outcome_count++] = *outcome;
    device->last_counter = outcome->counter;
}

static void load_user_record(const struct record *record, struct loaded *loaded,
                             struct loaded_device *devices)
{
    struct loaded_device *device;
    struct outcome outcome = { 0 };

    switch (record->type) {
    case RECORD_USER:
        loaded->status = LOAD_FOUND;
        loaded->epoch = record->user.epoch;
        loaded->floor = 1;
        break;
    case RECORD_DEVICE:
        load_device(loaded, devices, record->device.device, &device);
        device->generation = record->device.generation;
        break;
    case RECORD_ENTRY:
        loaded->head = record->entry.seq;
        if ((record->entry.flags & LOG_ENTRY_FLAG_OWN) != 0) {
            load_device(loaded, devices, record->entry.device, &device);
            outcome.counter = record->entry.counter;
            outcome.id = record->entry.id.value;
            outcome.seq = record->entry.seq;
            memcpy(outcome.nonce, record->entry.nonce, sizeof outcome.nonce);
            load_outcome(device, &outcome);
        }
        break;
    case RECORD_REJECT:
        load_device(loaded, devices, record->reject.device, &device);
        outcome.counter = record->reject.counter;
        outcome.code = record->reject.code;
        memcpy(outcome.nonce, record->reject.nonce, sizeof outcome.nonce);
        load_outcome(device, &outcome);
        break;
    case RECORD_FLOOR:
        loaded->floor = record->floor.floor;
        break;
    case RECORD_CURSOR:
        load_device(loaded, devices, record->cursor.device, &device);
        device->cursor = (struct origin){ record->cursor.epoch, record->cursor.seq };
        break;
    case RECORD_OUT_END:
        break;
    }
}

static void load_head_record(const struct load *load, const struct record *record,
                             struct loaded *loaded)
{
    if (record->type != RECORD_ENTRY || record->entry.form != LOG_ENTRY_MESSAGE ||
        record->entry.conversation.value != load->conversation.value) {
        return;
    }
    loaded->status = LOAD_FOUND;
    loaded->conversation_head.last = record->entry.seq;
    loaded->conversation_head.n = record->entry.n;
    loaded->conversation_head.cn = record->entry.cn;
    if ((record->entry.flags & LOG_ENTRY_FLAG_OWN) == 0) {
        loaded->conversation_head.origin = record->entry.origin;
    }
}

/* In the snapshot, or still in the journal's index: that forgets what is flushed. */
static bool is_visible(const struct host *host, const struct kept_record *kept, uint64_t snapshot)
{
    return kept->ticket <= snapshot ||
           (kept->ticket > host->flushed && kept->ticket <= host->durable);
}

static const struct kept_record *find_entry(const struct host *host, uint64_t user, uint64_t seq,
                                            uint64_t snapshot)
{
    uint64_t floor = 1;
    const struct kept_record *found = NULL;

    for (size_t i = 0; i < host->record_count; i++) {
        const struct kept_record *kept = &host->records[i];

        if (!is_visible(host, kept, snapshot) || kept->record.user.user.value != user) {
            continue;
        }
        if (kept->record.type == RECORD_FLOOR) {
            floor = kept->record.floor.floor;
        }
        if (kept->record.type == RECORD_ENTRY && kept->record.entry.seq == seq) {
            found = kept;
        }
    }
    return seq >= floor ? found : NULL;
}

static void load_entries(const struct host *host, const struct load *load, uint64_t snapshot,
                         struct loaded *loaded, uint8_t *bytes, size_t room)
{
    uint64_t seq = load->from;

    while (seq != 0 &&
           (load->kind == LOAD_CHAIN ? loaded->entry_count < load->count : seq <= load->to)) {
        const struct kept_record *kept = find_entry(host, load->user.value, seq, snapshot);

        if (kept == NULL ||
            (loaded->entry_count > 0 && loaded->entries_bytes + kept->bytes.count > load->bytes)) {
            break;
        }
        assert_true(loaded->entries_bytes + kept->bytes.count <= room);
        memcpy(bytes + loaded->entries_bytes, kept->bytes.at, kept->bytes.count);
        loaded->entries_bytes += kept->bytes.count;
        loaded->entry_count++;
        seq = load->kind == LOAD_CHAIN ? kept->record.entry.prev : seq + 1;
    }
    loaded->entries = bytes;
    loaded->status = loaded->entry_count > 0 ? LOAD_FOUND : LOAD_ABSENT;
}

static void load_checkpoint(const struct host *host, const struct load *load, uint64_t snapshot,
                            struct loaded *loaded)
{
    for (size_t i = 0; i < host->record_count; i++) {
        const struct kept_record *kept = &host->records[i];

        if (is_visible(host, kept, snapshot) && kept->record.type == RECORD_ENTRY &&
            kept->record.entry.user.value == load->user.value &&
            kept->record.entry.conversation.value == load->conversation.value &&
            kept->record.entry.n == load->block * 64) {
            loaded->status = LOAD_FOUND;
            loaded->seq = kept->record.entry.seq;
        }
    }
}

static void answer_load(struct host *host, const struct load *load)
{
    static uint8_t bytes[1 << 20];
    struct loaded_device *devices = calloc(DEVICES_PER_USER_MAX, sizeof *devices);
    struct loaded loaded = {
        .id = load->id, .status = LOAD_ABSENT, .snapshot_lsn = host->flushed, .devices = devices
    };

    if (host->stale_answers > 0) {
        host->stale_answers--;
        loaded.snapshot_lsn = host->stale_at;
    }
    if (load->kind == LOAD_RANGE || load->kind == LOAD_CHAIN) {
        load_entries(host, load, loaded.snapshot_lsn, &loaded, bytes, sizeof bytes);
    } else if (load->kind == LOAD_CHECKPOINT) {
        load_checkpoint(host, load, loaded.snapshot_lsn, &loaded);
    }
    for (size_t i = 0; i < host->record_count; i++) {
        const struct kept_record *kept = &host->records[i];

        if (kept->ticket > loaded.snapshot_lsn ||
            kept->record.user.user.value != load->user.value) {
            continue;
        }
        if (load->kind == LOAD_USER) {
            load_user_record(&kept->record, &loaded, devices);
        } else if (load->kind == LOAD_HEAD) {
            load_head_record(load, &kept->record, &loaded);
        }
    }
    if (host->fail_loads) {
        loaded.status = LOAD_FAILED;
    }
    if (host->damaged_user == load->user.value && host->damaged_kind == load->kind &&
        (host->damaged_from == 0 || host->damaged_from == load->from)) {
        loaded.status = LOAD_DAMAGED;
    }
    engine_on_loaded(host->engine, &loaded);
    free(devices);
    host_take_effects(host);
}

void host_answer_loads(struct host *host)
{
    const size_t count = host->load_count;

    host_begin_turn(host);
    for (size_t i = 0; i < count; i++) {
        const struct load load = host->loads[0];

        memmove(host->loads, host->loads + 1, (host->load_count - 1) * sizeof load);
        host->load_count--;
        answer_load(host, &load);
    }
    host_run(host);
}

/* Records */

size_t host_count_records(const struct host *host, enum record_type type, uint64_t user)
{
    size_t count = 0;

    for (size_t i = 0; i < host->record_count; i++) {
        const struct record *record = &host->records[i].record;

        if (record->type == type && (user == 0 || record->user.user.value == user)) {
            count++;
        }
    }
    return count;
}

const struct record *host_last_record(const struct host *host, enum record_type type, uint64_t user)
{
    const struct record *last = NULL;

    for (size_t i = 0; i < host->record_count; i++) {
        const struct record *record = &host->records[i].record;

        if (record->type == type && (user == 0 || record->user.user.value == user)) {
            last = record;
        }
    }
    assert_non_null(last);
    return last;
}
