#include "tests/sim/host.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "store/recover.h"
#include "tests/sim/audit.h"
#include "tests/sim/fail.h"
#include "tests/sim/host_fault.h"
#include "tests/sim/volume_map.h"

#define FUSE_MAX     80    /* operations of a recovery that is to be interrupted */
#define FLUSH_MEMORY 65536 /* so small that volumes are planned in several groups */
#define AUDIT_BYTES  65536
#define AILING_RATE  100 /* of recoveries, in a thousand, where rows rot */
#define ROT_READS    10  /* likewise, of their reads */
#define WHOLE_MAPS   500 /* of starts, in a thousand: volumes in turn */

/* ---- Parcels ---- */

struct parcel *parcel_new(const uint8_t *bytes, size_t byte_count)
{
    struct parcel *parcel = malloc(sizeof *parcel + byte_count);

    SIM_CHECK(parcel != NULL, "out of memory");
    *parcel = (struct parcel){ .byte_count = byte_count };
    memcpy(parcel->bytes, bytes, byte_count);
    return parcel;
}

void parcels_put(struct parcels *parcels, struct parcel *parcel)
{
    parcel->next = NULL;
    if (parcels->first == NULL) {
        parcels->end = &parcels->first;
    }
    *parcels->end = parcel;
    parcels->end = &parcel->next;
}

struct parcel *parcels_take(struct parcels *parcels)
{
    struct parcel *parcel = parcels->first;

    if (parcel != NULL) {
        parcels->first = parcel->next;
    }
    return parcel;
}

void parcels_clear(struct parcels *parcels)
{
    for (struct parcel *parcel = parcels_take(parcels); parcel != NULL;
         parcel = parcels_take(parcels)) {
        free(parcel);
    }
}

/* ---- Who lives where ---- */

void host_open(struct host *host)
{
    host->effects_hash = UINT64_C(14695981039346656037);
}

void host_close(struct host *host)
{
    HF_ASSERT(!host->running);
    checks_close(&host->checks);
    free(host->links);
}

void host_add_user(struct host *host, uint64_t user)
{
    const struct partition_id partition = partition_of(user);

    HF_ASSERT(host->user_count < HOST_PARTITIONS_MAX);
    host->users[host->user_count++] = user;
    if (host_find_partition(host, partition) == NULL) {
        host->partitions[host->partition_count++] = (struct host_partition){ .id = partition };
    }
}

uint16_t host_core_of(const struct host *host, struct partition_id partition)
{
    const struct manifest *manifest = &host->disk->manifest;

    return manifest->core_of_volume[schema_volume_of(partition, manifest->volume_count)];
}

struct host_partition *host_find_partition(struct host *host, struct partition_id partition)
{
    for (uint32_t i = 0; i < host->partition_count; i++) {
        if (host->partitions[i].id.value == partition.value) {
            return &host->partitions[i];
        }
    }
    return NULL;
}

/* ---- What the journal and the volumes tell the ledger ---- */

struct telling host_telling(struct host *host, const struct log_entry *entry)
{
    struct telling telling = {
        .refused = entry->form == LOG_ENTRY_REFUSED,
        .id = entry->id.value,
        .conversation = entry->conversation.value,
    };

    if (telling.refused) {
        const struct ledger_entry *refused =
            ledger_entry_at(host->ledger, entry->user.value, entry->ref_seq);

        telling.message = refused != NULL && !refused->said.refused ? refused->said.message : 0;
        telling.code = entry->code;
        telling.ref_seq = entry->ref_seq;
        return telling;
    }
    telling.message = ledger_message_of_body(host->ledger, entry->body, entry->body_bytes);
    telling.sender = entry->sender.value;
    telling.device = entry->device.value;
    telling.flags = entry->flags & LOG_ENTRY_FLAG_OWN;
    telling.kind = entry->kind;
    telling.prev = entry->prev;
    telling.n = entry->n;
    telling.cn = entry->cn;
    if ((entry->flags & LOG_ENTRY_FLAG_OWN) != 0) {
        telling.counter = entry->counter;
        memcpy(telling.nonce, entry->nonce, sizeof telling.nonce);
    }
    return telling;
}

void host_check_id(struct host *host, const struct log_entry *entry, bool rising)
{
    struct host_partition *partition = host_find_partition(host, partition_of(entry->user.value));

    if (entry->form != LOG_ENTRY_MESSAGE || (entry->flags & LOG_ENTRY_FLAG_OWN) == 0) {
        return;
    }
    SIM_CHECK(!rising || entry->id.value > partition->last_id,
              "user %llx, entry %llu: id %llx follows id %llx of its partition",
              (unsigned long long)entry->user.value, (unsigned long long)entry->seq,
              (unsigned long long)entry->id.value, (unsigned long long)partition->last_id);
    if (partition->last_id < entry->id.value) {
        partition->last_id = entry->id.value;
    }
}

static void tell_entries(struct host *host, const struct read_answer *answer, uint64_t user,
                         uint64_t epoch, uint64_t *seq)
{
    const uint8_t *at = answer->entries;
    const uint8_t *end = at + answer->entries_bytes;

    for (uint32_t i = 0; i < answer->entry_count; i++) {
        struct record record;
        size_t byte_count;
        const enum record_status status =
            record_parse(at, (size_t)(end - at), &record, &byte_count);

        SIM_CHECK(status == RECORD_OK && record.type == RECORD_ENTRY &&
                      record.entry.user.value == user && record.entry.seq == *seq,
                  "user %llx: the volume has something else for entry %llu",
                  (unsigned long long)user, (unsigned long long)*seq);

        const struct telling telling = host_telling(host, &record.entry);

        SIM_CHECK(record.entry.epoch == epoch, "user %llx: entry %llu is of epoch %llu",
                  (unsigned long long)user, (unsigned long long)*seq,
                  (unsigned long long)record.entry.epoch);
        host_check_id(host, &record.entry, false);
        ledger_tell(host->ledger, user, epoch, *seq, &telling, TELLING_STORED);
        host_count(host, HAZARD_AUDITED);
        at += byte_count;
        ++*seq;
    }
}

static void tell_user(struct host *host, struct reader *reader, uint64_t user)
{
    struct read_answer answer;
    struct read_request request = { .kind = READ_USER, .user = { user } };

    reader_load(reader, &request, NULL, &answer);
    SIM_CHECK(answer.status != READ_FAILED, "user %llx: %s", (unsigned long long)user,
              reader_text(reader));
    if (answer.status == READ_ABSENT) {
        ledger_check_recovered(host->ledger, user, 0, 0, 0);
        return;
    }

    const struct schema_facts facts = answer.facts;
    uint64_t seq = facts.floor;

    while (seq <= facts.head) {
        request = (struct read_request){
            .kind = READ_RANGE,
            .user = { user },
            .from = seq,
            .to = facts.head,
            .bytes = AUDIT_BYTES,
        };
        reader_load(reader, &request, NULL, &answer);
        SIM_CHECK(answer.status == READ_FOUND && answer.entry_count > 0,
                  "user %llx: entry %llu isn't in the volume (floor %llu, head %llu): %s",
                  (unsigned long long)user, (unsigned long long)seq,
                  (unsigned long long)facts.floor, (unsigned long long)facts.head,
                  answer.status == READ_FAILED ? reader_text(reader) : "absent");
        tell_entries(host, &answer, user, facts.epoch, &seq);
    }
    ledger_check_recovered(host->ledger, user, facts.epoch, facts.head, facts.floor);
}

void host_tell_stored(struct host *host)
{
    struct hf_error error;
    struct reader *reader =
        reader_open(host->disk->volumes, host->disk->manifest.volume_count, AUDIT_BYTES, &error);

    SIM_CHECK(reader != NULL, "%s", error.text);
    for (uint32_t i = 0; i < host->user_count; i++) {
        tell_user(host, reader, host->users[i]);
    }
    checks_on_recovered(host, reader);
    reader_close(reader);
}

/* ---- Starting ---- */

static bool prepare_volumes(struct disk *disk, struct hf_error *error)
{
    for (uint16_t i = 0; i < disk->manifest.volume_count; i++) {
        struct schema_identity identity = {
            .format = SCHEMA_FORMAT,
            .volume = i,
            .volume_count = disk->manifest.volume_count,
        };

        memcpy(identity.directory_id, disk->manifest.directory_id, sizeof identity.directory_id);
        if (!recover_prepare_volume(disk->volumes[i], &identity, error)) {
            return false;
        }
    }
    return true;
}

static void set_full(struct disk *disk, bool full)
{
    for (uint16_t i = 0; i < disk->manifest.volume_count; i++) {
        volume_map_set_full(disk->volumes[i], full);
    }
}

static bool run_recovery(struct host *host, struct recover *recover, struct hf_error *error)
{
    struct recover_stats stats;
    enum recover_status status;
    bool full = !host->calm && *host->event < host->full_until;

    do {
        set_full(host->disk, full);
        status = recover_step(recover, error);
        SIM_CHECK(full || status != RECOVER_FULL, "recovery finds the disk full");
        host->hazards->counts[HAZARD_FLUSH_FULL] += status == RECOVER_FULL ? 1 : 0;
        full = full && prng_chance(host->prng, 700);
    } while (status == RECOVER_MORE || status == RECOVER_FULL);
    set_full(host->disk, false);
    if (status != RECOVER_DONE) {
        return false;
    }
    recover_get_stats(recover, &stats);
    host->hazards->counts[HAZARD_TORN_BATCH] += stats.torn_batches;
    sim_say("recovered %llu records of %llu bytes, %u torn batches",
            (unsigned long long)stats.records, (unsigned long long)stats.bytes, stats.torn_batches);
    return true;
}

/* False: refused, or the fuse has burnt down. */
static bool recover_all(struct host *host, uint64_t *next_lsn, struct hf_error *error)
{
    struct disk *disk = host->disk;
    struct disk_core cores[DISK_CORES_MAX];
    struct journal_source sources[DISK_CORES_MAX];
    struct recover_config config = {
        .incarnation = disk->manifest.incarnation,
        .start_lsn = disk->manifest.start_lsn,
        .core_count = disk->manifest.core_count,
        .segment_bytes = disk->manifest.segment_bytes,
        .segment_count = disk->manifest.segment_count,
        .marks = true,
        .applied_min = disk->manifest.applied,
        .core_of_volume = disk->manifest.core_of_volume,
        .sources = sources,
        .volumes = disk->volumes,
        .volume_count = disk->manifest.volume_count,
        .memory_max = FLUSH_MEMORY,
        .slice_records = (uint32_t)prng_between(host->prng, 1, 60),
    };
    bool done = false;

    if (!disk_get_manifest(disk, error)) {
        return false;
    }
    memcpy(config.directory_id, disk->manifest.directory_id, sizeof config.directory_id);
    for (uint16_t i = 0; i < disk->manifest.core_count; i++) {
        cores[i] = (struct disk_core){ .disk = disk, .core = i };
        sources[i] = disk_source(&cores[i]);
    }
    if (!prepare_volumes(disk, error)) {
        return false;
    }

    struct recover *recover = recover_open(&config, error);

    if (recover == NULL) {
        return false;
    }
    if (run_recovery(host, recover, error)) {
        *next_lsn = recover_next_lsn(recover);
        done = true;
    }
    recover_close(recover);
    return done;
}

static void assign_volumes(struct host *host, struct manifest *manifest)
{
    const uint16_t first = (uint16_t)prng_below(host->prng, host->core_count);
    const bool in_turn = prng_chance(host->prng, WHOLE_MAPS);

    /* Any map is as good: some cores may have no volume at all. */
    for (uint16_t i = 0; i < manifest->volume_count; i++) {
        const uint64_t core = in_turn ? first + i : prng_next(host->prng);

        manifest->core_of_volume[i] = (uint16_t)(core % host->core_count);
    }
}

/* What directory_begin_run() does: a new incarnation, durable, before anything leaves. */
static void begin_run(struct host *host, uint64_t start_lsn)
{
    struct manifest *manifest = &host->disk->manifest;

    if (host->core_count == 0) {
        host->core_count = (uint16_t)host->options->cores;
    } else if (prng_chance(host->prng, host->options->cores_change)) {
        const uint16_t before = host->core_count;

        host->core_count = (uint16_t)prng_between(host->prng, 1, host->options->cores_max);
        if (host->core_count != before) {
            host_count(host, HAZARD_CORES_CHANGED);
        }
    }
    disk_make_segments(host->disk, host->core_count, host->options->segments,
                       host->options->segment_bytes);
    manifest->incarnation++;
    manifest->start_lsn = start_lsn;
    manifest->journal_set++;
    manifest->segment_bytes = host->options->segment_bytes;
    manifest->segment_count = host->options->segments;
    manifest->core_count = host->core_count;
    for (uint16_t i = 0; i < manifest->volume_count; i++) {
        struct hf_error error;

        SIM_CHECK(recover_read_applied(host->disk->volumes[i], &manifest->applied[i], &error),
                  "volume %u: %s", i, error.text);
    }
    assign_volumes(host, manifest);
    disk_write_start_marks(host->disk);
    disk_put_manifest(host->disk);
}

static void set_fuse(struct disk *disk, uint64_t operations)
{
    disk->fuse = operations;
    for (uint16_t i = 0; i < disk->manifest.volume_count; i++) {
        volume_map_set_fuse(disk->volumes[i], operations > 0 ? &disk->fuse : NULL);
    }
}

/* Somebody has been at the files: the server says so, or does without what was harmed. True: it
 * refused, and all is as it was. */
static bool meet_harm(struct host *host, uint64_t *next_lsn)
{
    struct hf_error error = { 0 };
    struct harm harm;

    if (!harm_do(host, &harm)) {
        return false;
    }
    host_count(host, HAZARD_DAMAGE);

    const bool recovered = recover_all(host, next_lsn, &error);

    sim_say("harm of kind %d: %s", (int)harm.kind, recovered ? "none" : error.text);
    SIM_CHECK(!recovered || !harm_is_certain(&harm), "harm of kind %d wasn't noticed",
              (int)harm.kind);
    if (recovered) {
        free(harm.before); /* the next run writes over it */
        *next_lsn = 0;
        return false;
    }
    host_count(host, HAZARD_DAMAGE_REFUSED);
    harm_undo(host, &harm);
    disk_crash(host->disk, false);
    return true;
}

/* False: it died, or was refused, and may be tried again. */
static bool recover_somehow(struct host *host, uint64_t *next_lsn)
{
    struct disk *disk = host->disk;
    struct hf_error error = { 0 };
    const bool dies = !host->calm && prng_chance(host->prng, host->options->recovery_crash);
    const bool ails = !host->calm && host->options->rot > 0 && prng_chance(host->prng, AILING_RATE);

    if (!host->calm && !dies && prng_chance(host->prng, host->options->damage) &&
        meet_harm(host, next_lsn)) {
        return false;
    }
    set_fuse(disk, dies ? prng_between(host->prng, 1, FUSE_MAX) : 0);
    disk_set_rot(disk, ails ? ROT_READS : 0, false);

    const bool recovered = recover_all(host, next_lsn, &error);

    disk_set_rot(disk, 0, false);
    if (dies && (!recovered || prng_chance(host->prng, 200))) {
        sim_say("a crash in recovery");
        host_count(host, HAZARD_CRASH_RECOVERY);
        disk_crash(disk, true);
        return false;
    }
    if (ails && !recovered) {
        sim_say("recovery: %s", error.text);
        host_count(host, HAZARD_ROT_REFUSED);
        disk_crash(disk, false);
        return false;
    }
    SIM_CHECK(recovered, "recovery: %s", error.text);
    set_fuse(disk, 0);
    return true;
}

static void audit_volumes(struct host *host)
{
    const struct disk *disk = host->disk;

    for (uint16_t i = 0; i < disk->manifest.volume_count; i++) {
        host->hazards->counts[HAZARD_ROWS_AUDITED] +=
            audit_volume(disk->volumes[i], i, disk->manifest.volume_count, host->drained);
    }
}

void host_boot(struct host *host)
{
    struct disk *disk = host->disk;
    uint64_t next_lsn = 0;

    HF_ASSERT(!host->running);
    if (!recover_somehow(host, &next_lsn)) {
        return;
    }
    for (uint16_t i = 0; i < disk->manifest.volume_count; i++) {
        volume_map_forget_versions(disk->volumes[i]);
    }
    host_tell_stored(host);
    audit_volumes(host);
    memset(host->loss_due, 0, sizeof host->loss_due);
    begin_run(host, next_lsn);
    for (uint16_t i = 0; i < host->core_count; i++) {
        host->cores[i] = (struct core){ .number = i };
        host_core_open(host, &host->cores[i], next_lsn);
    }
    host->running = true;
    host->link_count = 0;
    for (uint32_t i = 0; i < host->partition_count; i++) {
        struct core *core = &host->cores[host_core_of(host, host->partitions[i].id)];

        host_open_partition(host, core, &host->partitions[i]);
    }
    sim_say("started: incarnation %llu, %u cores, LSN %llu",
            (unsigned long long)disk->manifest.incarnation, host->core_count,
            (unsigned long long)next_lsn);
}

void host_crash(struct host *host, bool power)
{
    HF_ASSERT(host->running);
    sim_say(power ? "crash" : "crash of the process alone");
    host_count(host, HAZARD_CRASHES);
    host->hazards->counts[HAZARD_KILLS] += power ? 0 : 1;
    for (uint32_t i = 0; i < NET_CONNECTIONS_MAX; i++) {
        struct connection *connection = &host->net->connections[i];

        if (connection->server_end) {
            const size_t bytes = queue_bytes(&connection->down);

            net_server_leaves(connection, prng_below(host->prng, bytes + 1));
        }
    }
    disk_tear_writes(host->disk);
    for (uint16_t i = 0; i < host->core_count; i++) {
        if (host->cores[i].flush != NULL) {
            host_count(host, HAZARD_CRASH_FLUSH);
        }
        host_core_close(host, &host->cores[i]);
    }
    disk_crash(host->disk, power);
    host->running = false;
}

/* ---- Partitions ---- */

void host_open_partition(struct host *host, struct core *core, struct host_partition *partition)
{
    struct read_partition read;

    reader_load_partition(core->reader, partition->id, &read);
    SIM_CHECK(read.status != READ_FAILED, "partition %u: %s", partition->id.value,
              reader_text(core->reader));

    struct out_row *rows = calloc(read.out_count + 1, sizeof *rows);

    SIM_CHECK(rows != NULL, "out of memory");
    for (size_t i = 0; i < read.out_count; i++) {
        rows[i] = (struct out_row){
            .id = read.outs[i].id,
            .user = read.outs[i].user,
            .epoch = read.outs[i].epoch,
            .seq = read.outs[i].seq,
            .to = read.outs[i].to,
        };
    }
    partition->state = PARTITION_OPEN;
    host_begin_turn(host, core);
    engine_on_partition_open(core->engine, partition->id, read.last_id, rows, read.out_count);
    host_take_effects(host, core);
    host_run_engine(host, core);
    free(rows);
}

void host_close_partition(struct host *host)
{
    struct host_partition *partition =
        &host->partitions[prng_below(host->prng, host->partition_count)];

    for (uint32_t i = 0; i < host->partition_count; i++) {
        if (host->partitions[i].state != PARTITION_OPEN) {
            return; /* one at a time */
        }
    }
    partition->state = PARTITION_CLOSING;
    sim_say("partition %u is closing", partition->id.value);
}

/* Everything that the core has appended is in the volumes, and its engine knows. */
static bool core_is_flushed(const struct core *core)
{
    return core->unwritten.first == NULL && journal_idle(core->journal) && !core->flushing &&
           !core->flushed_untold && journal_unflushed_bytes(core->journal) == 0 &&
           core->durable_told == journal_durable_ticket(core->journal);
}

/* Links to and from the partition begin anew, everywhere. */
static void links_down(struct host *host, struct partition_id partition)
{
    for (uint16_t i = 0; i < host->core_count; i++) {
        host_begin_turn(host, &host->cores[i]);
        engine_on_link_down(host->cores[i].engine, partition);
        host_take_effects(host, &host->cores[i]);
        host_run_engine(host, &host->cores[i]);
    }
}

static void close_now(struct host *host, struct core *core, struct host_partition *partition)
{
    sim_say("partition %u closes", partition->id.value);
    partition->state = PARTITION_CLOSED;
    partition->until_event = *host->event + prng_between(host->prng, 1, 60);
    host_begin_turn(host, core);
    engine_on_partition_close(core->engine, partition->id);
    host_take_effects(host, core);
    for (uint32_t i = 0; i < NET_CONNECTIONS_MAX; i++) {
        struct connection *connection = &host->net->connections[i];

        if (connection->server_end &&
            partition_of(host->users[connection->user]).value == partition->id.value) {
            if (connection->offered) {
                engine_on_closed(core->engine, connection->ref);
                host_take_effects(host, core);
            }
            net_server_leaves(connection, queue_bytes(&connection->down));
        }
    }
    host_run_engine(host, core);
    host_count(host, HAZARD_PARTITIONS_MOVED);
}

void host_partition_step(struct host *host)
{
    for (uint32_t i = 0; i < host->partition_count; i++) {
        struct host_partition *partition = &host->partitions[i];
        struct core *core = &host->cores[host_core_of(host, partition->id)];

        if (partition->state == PARTITION_CLOSING) {
            core->flush_wanted = true;
            if (core_is_flushed(core)) {
                close_now(host, core, partition);
            }
        } else if (partition->state == PARTITION_CLOSED &&
                   (host->calm || *host->event >= partition->until_event)) {
            sim_say("partition %u opens", partition->id.value);
            host_open_partition(host, core, partition);
            links_down(host, partition->id);
        }
    }
}
