#include "tests/sim/checks.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "core/engine/stream_frame.h"
#include "proto/entries.h"
#include "proto/message.h"
#include "tests/sim/fail.h"
#include "tests/sim/host.h"

void checks_close(struct checks *checks)
{
    free(checks->outs);
    free(checks->devices);
    *checks = (struct checks){ 0 };
}

/* ---- Stream records ---- */

static void add_out(struct checks *checks, const struct checks_out *out)
{
    if (checks->out_count == checks->out_capacity) {
        checks->out_capacity = checks->out_capacity * 2 + 64;
        checks->outs = realloc(checks->outs, checks->out_capacity * sizeof *checks->outs);
        SIM_CHECK(checks->outs != NULL, "out of memory");
    }
    checks->outs[checks->out_count++] = *out;
}

static struct checks_out *find_out(struct checks *checks, uint64_t id)
{
    for (uint32_t i = 0; i < checks->out_count; i++) {
        if (checks->outs[i].id == id) {
            return &checks->outs[i];
        }
    }
    return NULL;
}

/* The last before that one, of the same user to the same peer. */
static struct origin out_before(const struct checks *checks, const struct stream_record *record)
{
    struct origin before = { 0, 0 };

    for (uint32_t i = 0; i < checks->out_count; i++) {
        const struct checks_out *out = &checks->outs[i];

        if (out->user == record->from.value && out->to == record->to.value &&
            origin_compare(out->origin, record->origin) < 0 &&
            origin_compare(out->origin, before) > 0) {
            before = out->origin;
        }
    }
    return before;
}

void checks_on_stream(struct host *host, const struct effect *effect)
{
    struct stream_records records;
    struct stream_record record;
    uint64_t number;

    if (!stream_decode_records(effect->bytes, effect->byte_count, &records)) {
        return;
    }
    while (stream_next(&records, &number, &record)) {
        const struct origin before = out_before(&host->checks, &record);

        SIM_CHECK(find_out(&host->checks, record.id.value) != NULL,
                  "user %llx: entry %llu leaves for another home, and isn't durable, or has ended",
                  (unsigned long long)record.from.value, (unsigned long long)record.origin.seq);
        SIM_CHECK(origin_compare(before, record.after) == 0,
                  "user %llx: entry %llu leaves after %llu, but the last before it whose end isn't "
                  "durable is %llu",
                  (unsigned long long)record.from.value, (unsigned long long)record.origin.seq,
                  (unsigned long long)record.after.seq, (unsigned long long)before.seq);
    }
}

/* ---- Appends ---- */

/* A refusal of that entry in the same append. */
static bool is_refused_in(const struct effect *effect, uint64_t user, uint64_t seq)
{
    size_t at = 0;

    while (at < effect->byte_count) {
        struct record record;
        size_t byte_count;

        SIM_CHECK(record_parse(effect->bytes + at, effect->byte_count - at, &record, &byte_count) ==
                      RECORD_OK,
                  "the engine appends what is no record");
        if (record.type == RECORD_ENTRY && record.entry.form == LOG_ENTRY_REFUSED &&
            record.entry.user.value == user && record.entry.ref_seq == seq) {
            return true;
        }
        at += byte_count;
    }
    return false;
}

/* What ended is in its receiver's log, durable, or its sender is told in the same append. */
static void check_end(struct host *host, const struct effect *effect,
                      const struct record_out_end *end)
{
    const struct checks_out *out = find_out(&host->checks, end->id.value);

    SIM_CHECK(out != NULL, "user %llx: id %llx ends, which wasn't durable, or has ended",
              (unsigned long long)end->user.value, (unsigned long long)end->id.value);

    const struct ledger_entry *entry = ledger_entry_at(host->ledger, out->user, out->origin.seq);

    SIM_CHECK(entry != NULL && entry->said.message != 0, "user %llx: entry %llu ends unseen",
              (unsigned long long)out->user, (unsigned long long)out->origin.seq);
    SIM_CHECK(ledger_message(host->ledger, entry->said.message)->arrived ||
                  ledger_log(host->ledger, out->to)->floor > 1 ||
                  is_refused_in(effect, out->user, out->origin.seq),
              "message %u has ended, but isn't durable in its receiver's log, nor refused (I1)",
              entry->said.message);
}

void checks_on_append(struct host *host, const struct effect *effect)
{
    size_t at = 0;

    while (at < effect->byte_count) {
        struct record record;
        size_t byte_count;

        SIM_CHECK(record_parse(effect->bytes + at, effect->byte_count - at, &record, &byte_count) ==
                      RECORD_OK,
                  "the engine appends what is no record");
        at += byte_count;
        if (record.type == RECORD_OUT_END) {
            check_end(host, effect, &record.out_end);
        } else if (record.type == RECORD_ENTRY && (record.entry.flags & LOG_ENTRY_FLAG_OWN) != 0) {
            const uint32_t index =
                ledger_message_of_body(host->ledger, record.entry.body, record.entry.body_bytes);
            const bool known =
                ledger_log(host->ledger, record.entry.conversation.value)->epoch != 0;

            ledger_message(host->ledger, index)->receiver_known = known;
        }
    }
}

/* ---- Counters ---- */

static struct checks_device *device_of(struct checks *checks, uint64_t user, uint32_t device)
{
    for (uint32_t i = 0; i < checks->device_count; i++) {
        if (checks->devices[i].user == user && checks->devices[i].device == device) {
            return &checks->devices[i];
        }
    }
    if (checks->device_count == checks->device_capacity) {
        checks->device_capacity = checks->device_capacity * 2 + 16;
        checks->devices =
            realloc(checks->devices, checks->device_capacity * sizeof *checks->devices);
        SIM_CHECK(checks->devices != NULL, "out of memory");
    }
    checks->devices[checks->device_count] =
        (struct checks_device){ .user = user, .device = device };
    return &checks->devices[checks->device_count++];
}

static void use_counter(struct host *host, uint64_t user, uint32_t device, uint64_t counter)
{
    struct checks_device *known = device_of(&host->checks, user, device);

    SIM_CHECK(counter == known->counter + 1,
              "user %llx, device %u: the counter %llu is consumed after %llu",
              (unsigned long long)user, device, (unsigned long long)counter,
              (unsigned long long)known->counter);
    known->counter = counter;
}

void checks_on_durable(struct host *host, const struct record *record)
{
    struct checks *checks = &host->checks;

    if (record->type == RECORD_ENTRY) {
        const struct log_entry *entry = &record->entry;

        if ((entry->flags & LOG_ENTRY_FLAG_OWN) != 0) {
            use_counter(host, entry->user.value, entry->device.value, entry->counter);
        }
        if ((entry->flags & LOG_ENTRY_FLAG_OUT) != 0) {
            const struct checks_out out = {
                .id = entry->id.value,
                .user = entry->user.value,
                .to = entry->conversation.value,
                .origin = { entry->epoch, entry->seq },
            };

            add_out(checks, &out);
        }
    } else if (record->type == RECORD_REJECT) {
        use_counter(host, record->reject.user.value, record->reject.device.value,
                    record->reject.counter);
    } else if (record->type == RECORD_OUT_END) {
        struct checks_out *out = find_out(checks, record->out_end.id.value);

        SIM_CHECK(out != NULL, "id %llx has ended twice",
                  (unsigned long long)record->out_end.id.value);
        *out = checks->outs[--checks->out_count];
    }
}

static void recover_devices(struct host *host, struct reader *reader, uint64_t user)
{
    const struct read_request request = { .kind = READ_USER, .user = { user } };
    struct read_answer answer;

    reader_load(reader, &request, NULL, &answer);
    SIM_CHECK(answer.status != READ_FAILED, "user %llx: %s", (unsigned long long)user,
              reader_text(reader));
    for (uint32_t i = 0; i < answer.device_count; i++) {
        struct checks_device *known =
            device_of(&host->checks, user, answer.devices[i].device.value);
        const uint64_t counter = answer.devices[i].state.last_counter;

        SIM_CHECK(counter >= known->counter,
                  "user %llx, device %u: the last counter was %llu, and is %llu after a crash",
                  (unsigned long long)user, known->device, (unsigned long long)known->counter,
                  (unsigned long long)counter);
        known->counter = counter;
    }
}

void checks_on_recovered(struct host *host, struct reader *reader)
{
    host->checks.out_count = 0;
    for (uint32_t i = 0; i < host->user_count; i++) {
        recover_devices(host, reader, host->users[i]);
    }
    for (uint32_t i = 0; i < host->partition_count; i++) {
        struct read_partition read;

        reader_load_partition(reader, host->partitions[i].id, &read);
        SIM_CHECK(read.status != READ_FAILED, "partition %u: %s", host->partitions[i].id.value,
                  reader_text(reader));
        for (size_t o = 0; o < read.out_count; o++) {
            const struct checks_out out = {
                .id = read.outs[o].id.value,
                .user = read.outs[o].user.value,
                .to = read.outs[o].to.value,
                .origin = { read.outs[o].epoch, read.outs[o].seq },
            };

            add_out(&host->checks, &out);
        }
    }
}

/* ---- Frames to clients ---- */

void checks_on_hello(struct host *host, struct connection *connection, struct device_id device)
{
    const uint64_t user = host->users[connection->user];

    if (connection->offered) {
        return; /* it was blocked, and is offered again */
    }
    connection->least_head = ledger_log(host->ledger, user)->head_durable;
    connection->least_counter = device_of(&host->checks, user, device.value)->counter;
}

void checks_on_welcome(struct host *host, const struct connection *connection,
                       const struct welcome *welcome)
{
    const struct ledger_log *log = ledger_log(host->ledger, welcome->user.value);
    const struct checks_device *device =
        device_of(&host->checks, welcome->user.value, welcome->device.value);

    SIM_CHECK(welcome->head <= log->head_durable,
              "user %llx: HELLO_OK says head %llu, of which %llu are durable",
              (unsigned long long)welcome->user.value, (unsigned long long)welcome->head,
              (unsigned long long)log->head_durable);
    SIM_CHECK(welcome->head >= connection->least_head,
              "user %llx: HELLO_OK says head %llu, but %llu were durable when HELLO came",
              (unsigned long long)welcome->user.value, (unsigned long long)welcome->head,
              (unsigned long long)connection->least_head);
    SIM_CHECK(welcome->last_counter <= device->counter,
              "user %llx, device %u: HELLO_OK says last counter %llu, but %llu is durable",
              (unsigned long long)welcome->user.value, welcome->device.value,
              (unsigned long long)welcome->last_counter, (unsigned long long)device->counter);
    SIM_CHECK(welcome->last_counter >= connection->least_counter,
              "user %llx, device %u: HELLO_OK says last counter %llu, but %llu was durable when "
              "HELLO came",
              (unsigned long long)welcome->user.value, welcome->device.value,
              (unsigned long long)welcome->last_counter,
              (unsigned long long)connection->least_counter);
}

static uint64_t last_of_entries(const struct frame_view *view)
{
    struct message_entries entries;
    struct entry entry;
    uint64_t seq = 0;

    SIM_CHECK(message_decode_entries(view, &entries) == CODE_OK, "ENTRIES that can't be read");
    while (entries_next(&entries, &seq, &entry)) {
    }
    return seq;
}

static uint64_t newest_of_page(const struct frame_view *view)
{
    struct message_page page;
    struct entry_message entry;
    uint64_t newest = 0;
    uint64_t seq;

    SIM_CHECK(message_decode_page(view, &page) == CODE_OK, "a PAGE that can't be read");
    while (page_next(&page, &seq, &entry)) {
        newest = newest < seq ? seq : newest;
    }
    return newest;
}

void checks_on_send(struct host *host, const struct connection *connection,
                    const struct frame_view *view)
{
    const uint64_t user = host->users[connection->user];
    uint64_t seq = 0;

    if (view->type == FRAME_TYPE_ENTRIES) {
        seq = last_of_entries(view);
    } else if (view->type == FRAME_TYPE_PAGE) {
        seq = newest_of_page(view);
    } else if (view->type == FRAME_TYPE_ACCEPTED) {
        struct message_accepted accepted;

        SIM_CHECK(message_decode_accepted(view, &accepted) == CODE_OK, "a bad ACCEPTED");
        seq = accepted.seq;
    }
    SIM_CHECK(seq <= ledger_log(host->ledger, user)->head_durable,
              "user %llx: %s tells of entry %llu, but only %llu are durable",
              (unsigned long long)user, frame_type_name(view->type), (unsigned long long)seq,
              (unsigned long long)ledger_log(host->ledger, user)->head_durable);
}
