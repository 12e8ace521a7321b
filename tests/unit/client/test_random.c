/*
 * The machine, a disk and the model of a server under random schedules: connections cut at any
 * frame, crashes of the client at any moment, refusals, trimmed logs, client and server restored
 * from backups. Whatever happens, no message is in the log twice, none that was queued vanishes,
 * and the log on the disk is the server's.
 *
 *     test_client_random [SEED [COUNT]]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/client/fixture.h"
#include "tests/unit/client/model.h"

#define TAGS_MAX  2048
#define RING      256
#define LINE      (1 << 16)
#define SEEDS     400
#define STEPS     700
#define BODY_SIZE 8

enum fate {
    FATE_WAITING,
    FATE_ACCEPTED,
    FATE_REJECTED,
    FATE_UNKNOWN,
};

/* What would be on a disk: all that survives a crash, and is copied by a backup. */
struct disk {
    struct message_cursor cursor;
    uint64_t base; /* the log here begins behind it, */
    uint64_t last_counter;
    bool recounting;
    uint64_t tags; /* messages queued: 1 to tags */
    struct {
        uint64_t counter;
        enum fate fate;
        bool cut;
    } send[TAGS_MAX + 1];
    uint64_t ids[MODEL_ENTRIES_MAX + 1]; /* by seq; 0: skipped */
};

struct world {
    struct model *model;
    struct model *model_backup;
    struct disk *disk;
    struct disk *disk_backup;
    struct client client;
    struct client_send ring[RING];
    struct client_requests requests;
    struct client_scratch scratch;
    struct model_link link;
    bool connected;
    uint64_t now_ms;
    uint8_t up[LINE]; /* from the client */
    size_t up_bytes;
    uint64_t first_tag; /* messages before it belong to a life that was given up */
    uint64_t created;   /* tags are never used twice, not even after a restore */
    bool server_restored;
    bool client_restored;
    unsigned hazards[8];
};

static char bodies[TAGS_MAX + 1][BODY_SIZE];

static void init_client(struct world *world)
{
    struct disk *disk = world->disk;
    const struct client_options options = {
        .user = { USER },
        .device = { DEVICE },
        .cursor = disk->cursor,
        .last_counter = disk->last_counter,
        .recounting = disk->recounting,
        .login_token = { (const uint8_t *)"login", 5 },
        .jitter_seed = world->model->random,
        .sends = world->ring,
        .sends_capacity = RING,
        .requests = &world->requests,
        .scratch = &world->scratch,
    };

    memset(&world->requests, 0, sizeof world->requests);
    client_init(&world->client, &options);
    for (uint64_t tag = 1; tag <= disk->tags; tag++) {
        if (disk->send[tag].fate == FATE_WAITING && disk->send[tag].counter != 0) {
            const struct client_send send = { .tag = tag,
                                              .counter = disk->send[tag].counter,
                                              .nonce = nonce_of(tag),
                                              .conversation = { PEER + tag % 3 },
                                              .body = (const uint8_t *)bodies[tag],
                                              .body_bytes = (uint16_t)strlen(bodies[tag]),
                                              .cut = disk->send[tag].cut };

            assert_true(client_restore(&world->client, &send));
        }
    }
    world->connected = false;
    world->link.out_bytes = 0;
    world->up_bytes = 0;
    assert_true(client_start(&world->client, world->now_ms));
}

/* ---- the disk */

static void answer(struct disk *disk, uint64_t tag, enum fate fate)
{
    assert_true(tag >= 1 && tag <= disk->tags);
    assert_int_equal(disk->send[tag].fate, FATE_WAITING);
    disk->send[tag].fate = fate;
}

static void on_online(struct disk *disk, const struct client_event *event)
{
    if (event->online.reset == CLIENT_RESET_NONE) {
        return;
    }
    if (event->online.reset != CLIENT_RESET_GAP) {
        memset(disk->ids, 0, sizeof disk->ids);
        disk->base = event->online.cursor.seq;
    }
    disk->cursor = event->online.cursor;
    disk->recounting = disk->recounting || event->online.recounting;
    for (uint64_t tag = 1; event->online.cut && tag <= disk->tags; tag++) {
        disk->send[tag].cut = true;
    }
}

static void on_event(struct world *world, const struct client_event *event)
{
    struct disk *disk = world->disk;
    uint64_t counter = event->counter;

    switch (event->kind) {
    case CLIENT_EVENT_ONLINE:
        on_online(disk, event);
        break;
    case CLIENT_EVENT_ENTRY:
        assert_int_equal(event->entry.seq, disk->cursor.seq + 1);
        disk->cursor.seq++;
        disk->ids[disk->cursor.seq] = event->entry.entry.form == ENTRY_SENT
                                          ? event->entry.entry.sent.id.value
                                          : event->entry.entry.message.id.value;
        if (event->entry.tag != 0) {
            answer(disk, event->entry.tag, FATE_ACCEPTED);
        }
        break;
    case CLIENT_EVENT_ACCEPTED:
        answer(disk, event->answer.tag, FATE_ACCEPTED);
        break;
    case CLIENT_EVENT_REJECTED:
        answer(disk, event->answer.tag, FATE_REJECTED);
        break;
    case CLIENT_EVENT_UNKNOWN_FATE:
        answer(disk, event->answer.tag, FATE_UNKNOWN);
        break;
    case CLIENT_EVENT_RENUMBERED:
        for (uint64_t tag = 1; tag <= disk->tags; tag++) {
            if (disk->send[tag].fate == FATE_WAITING && disk->send[tag].counter != 0) {
                disk->send[tag].counter = counter++;
            }
        }
        disk->last_counter = counter - 1;
        disk->recounting = false;
        break;
    case CLIENT_EVENT_OFFLINE:
        assert_int_not_equal(event->offline.why, CLIENT_WHY_VIOLATION);
        assert_false(event->offline.stopped);
        break;
    case CLIENT_EVENT_RESUME_TOKEN:
    case CLIENT_EVENT_TOKEN_WANTED:
    case CLIENT_EVENT_CAUGHT_UP:
    case CLIENT_EVENT_DELAYED:
    case CLIENT_EVENT_PAGE:
    case CLIENT_EVENT_REQUEST_FAILED:
    case CLIENT_EVENT_ERROR:
    case CLIENT_EVENT_GOAWAY:
        break;
    }
}

static void take_events(struct world *world)
{
    struct client_event event;

    while (client_next_event(&world->client, &event)) {
        on_event(world, &event);
    }
    client_stored(&world->client, world->disk->cursor.seq);
}

/* ---- the wire */

static void give_output(struct world *world)
{
    if (world->connected) {
        world->up_bytes += client_output(&world->client, world->up + world->up_bytes,
                                         sizeof world->up - world->up_bytes, world->now_ms, false);
    }
}

static void disconnect(struct world *world)
{
    if (world->connected) {
        world->connected = false;
        world->link.out_bytes = 0;
        world->up_bytes = 0;
        client_on_disconnected(&world->client, world->now_ms);
        take_events(world);
    }
}

/* One frame from the client reaches the server. */
static bool carry_up(struct world *world)
{
    struct frame_view view;

    if (!world->connected || frame_parse(world->up, world->up_bytes, &view) != FRAME_OK) {
        return false;
    }
    model_input(world->model, &world->link, &view);
    world->up_bytes -= frame_bytes(&view);
    memmove(world->up, world->up + frame_bytes(&view), world->up_bytes);
    return true;
}

/* One frame from the server reaches the client. */
static bool carry_down(struct world *world)
{
    static uint8_t frame[FRAME_BYTES_MAX];
    struct frame_view view;

    if (!world->connected ||
        frame_parse(world->link.out, world->link.out_bytes, &view) != FRAME_OK) {
        if (world->connected && world->link.closed) {
            disconnect(world);
        }
        return false;
    }

    const size_t count = frame_bytes(&view);

    memcpy(frame, world->link.out, count);
    model_take(&world->link, count);
    assert_int_equal(frame_parse(frame, count, &view), FRAME_OK);
    client_on_frame(&world->client, &view, world->now_ms);
    take_events(world);
    give_output(world);
    if (client_wants_close(&world->client)) {
        disconnect(world);
    }
    return true;
}

static void push(struct world *world)
{
    if (world->connected) {
        model_push(world->model, &world->link);
    }
}

static void tick(struct world *world, uint64_t ms)
{
    world->now_ms += ms;
    if (client_state(&world->client) == CLIENT_WAITING &&
        world->now_ms >= client_connect_at_ms(&world->client)) {
        model_connect(world->model, &world->link);
        world->connected = true;
        client_on_connected(&world->client, world->now_ms);
    }
    client_on_time(&world->client, world->now_ms);
    take_events(world);
    give_output(world);
    if (world->connected && client_wants_close(&world->client)) {
        disconnect(world);
    }
}

/* ---- what happens */

static void queue_one(struct world *world)
{
    struct disk *disk = world->disk;
    const uint64_t tag = world->created + 1;

    if (tag > TAGS_MAX) {
        return;
    }
    (void)snprintf(bodies[tag], BODY_SIZE, "m%" PRIu64, tag);

    struct client_send send = { .tag = tag,
                                .nonce = nonce_of(tag),
                                .conversation = { PEER + tag % 3 },
                                .body = (const uint8_t *)bodies[tag],
                                .body_bytes = (uint16_t)strlen(bodies[tag]) };

    if (client_send(&world->client, &send) == CLIENT_SEND_OK) {
        world->created = tag;
        disk->tags = tag;
        disk->send[tag].counter = send.counter;
        disk->send[tag].fate = FATE_WAITING;
        disk->last_counter = send.counter;
        if (model_random(world->model, 4) > 0) { /* else it is written later, or never */
            give_output(world);
        }
    }
}

static void restore_client(struct world *world)
{
    if (world->disk_backup->cursor.epoch == 0) {
        return;
    }
    *world->disk = *world->disk_backup;
    world->client_restored = true;
    world->first_tag = world->created + 1; /* what was queued since is only checked for doubles */
    init_client(world);
}

static void restore_server(struct world *world)
{
    const uint64_t random = world->model->random;
    const uint64_t links = world->model->links;
    const uint64_t epoch = world->model->epoch;
    const uint64_t next_id = world->model->next_id;

    if (world->model_backup->epoch == 0) {
        return;
    }
    *world->model = *world->model_backup;
    world->model->random = random;
    world->model->links = links;
    world->model->epoch = epoch + 1;
    world->model->next_id = next_id;
    world->server_restored = true;
    disconnect(world);
}

static void step(struct world *world, bool restores)
{
    struct model *model = world->model;
    const uint64_t what = model_random(model, restores ? 1000 : 970);

    if (what < 300) {
        (void)carry_up(world);
    } else if (what < 600) {
        (void)carry_down(world);
    } else if (what < 700) {
        push(world);
    } else if (what < 800) {
        queue_one(world);
    } else if (what < 850) {
        model_receive(model, PEER + model_random(model, 3), "hi");
    } else if (what < 920) {
        tick(world, model_random(model, 3000));
    } else if (what < 945) {
        world->hazards[0] += world->connected;
        disconnect(world);
    } else if (what < 960) {
        world->hazards[1]++;
        init_client(world); /* the process died: memory and connection are gone */
    } else if (what < 965) {
        world->hazards[2]++;
        model->refuse_percent = model->refuse_percent > 0 ? 0 : 30;
    } else if (what < 970) {
        if (restores && model->count > model->floor) {
            world->hazards[3]++;
            model->floor += model_random(model, model->count - model->floor + 1);
        }
    } else if (what < 980) {
        *world->disk_backup = *world->disk;
    } else if (what < 983) {
        world->hazards[4]++;
        restore_client(world);
    } else if (what < 990) {
        *world->model_backup = *model;
    } else if (what < 993) {
        world->hazards[5]++;
        restore_server(world);
    }
}

/* ---- what must be true in the end */

static void heal(struct world *world)
{
    world->model->refuse_percent = 0;
    for (int i = 0; i < 20000; i++) {
        const bool quiet = !carry_up(world) && !carry_down(world);

        push(world);
        if (quiet && world->link.out_bytes == 0 && world->up_bytes == 0) {
            if (world->connected && client_caught_up(&world->client) &&
                client_unanswered(&world->client) == 0 &&
                world->disk->cursor.seq == world->model->count) {
                return;
            }
            tick(world, 1000);
        }
    }
    fail_msg("it never becomes quiet: state %u, unanswered %u, at %" PRIu64 " of %" PRIu64,
             client_state(&world->client), client_unanswered(&world->client),
             world->disk->cursor.seq, world->model->count);
}

static void check_no_doubles(const struct world *world)
{
    for (uint64_t tag = 1; tag <= world->created; tag++) {
        const struct nonce nonce = nonce_of(tag);
        const unsigned count = model_count(world->model, &nonce);

        if (count > 1) {
            fail_msg("message %" PRIu64 " is in the log %u times", tag, count);
        }
    }
}

static void check_no_loss(const struct world *world)
{
    const struct disk *disk = world->disk;

    for (uint64_t tag = 1; tag <= disk->tags; tag++) {
        const struct nonce nonce = nonce_of(tag);
        const unsigned count = model_count(world->model, &nonce);

        if (disk->send[tag].counter == 0) {
            continue; /* of a life that was given up */
        }
        if (disk->send[tag].fate == FATE_WAITING) {
            fail_msg("message %" PRIu64 " still waits", tag);
        }
        /* A restored server may have lost what it accepted. */
        if (disk->send[tag].fate == FATE_ACCEPTED && count == 0 && !world->server_restored) {
            fail_msg("message %" PRIu64 " was accepted, and isn't in the log", tag);
        }
        if (disk->send[tag].fate == FATE_UNKNOWN && !world->server_restored &&
            !world->client_restored) {
            fail_msg("message %" PRIu64 " has an unknown fate for no reason", tag);
        }
    }
}

static void check_log(const struct world *world)
{
    const struct disk *disk = world->disk;
    uint64_t last_tag = 0;

    assert_int_equal(disk->cursor.epoch, world->model->epoch);
    for (uint64_t seq = 1; seq <= world->model->count; seq++) {
        const struct model_entry *entry = &world->model->entries[seq - 1];

        if (disk->ids[seq] != 0 && disk->ids[seq] != entry->id.value) {
            fail_msg("entry %" PRIu64 " is another here", seq);
        }
        if (disk->ids[seq] == 0 && seq >= world->model->floor && seq > disk->base) {
            fail_msg("entry %" PRIu64 " is missing here", seq);
        }
        /* In the order in which they were queued, where nothing was restored. */
        if (entry->own && !world->server_restored && !world->client_restored) {
            const uint64_t tag = load_be64(entry->nonce.bytes + 8);

            assert_true(tag > last_tag);
            last_tag = tag;
        }
    }
}

static void run(uint64_t seed, unsigned hazards[8])
{
    static struct world world;

    memset(&world, 0, sizeof world);
    world.model = model_open(USER, DEVICE, seed);
    world.model_backup = calloc(1, sizeof *world.model_backup);
    world.disk = calloc(1, sizeof *world.disk);
    world.disk_backup = calloc(1, sizeof *world.disk_backup);
    world.link.out = malloc(MODEL_OUT_BYTES);
    assert_true(world.model_backup != NULL && world.disk != NULL && world.disk_backup != NULL);
    assert_non_null(world.link.out);
    world.now_ms = 1000;
    init_client(&world);
    for (int i = 0; i < STEPS; i++) {
        step(&world, seed % 2 == 1);
    }
    heal(&world);
    check_no_doubles(&world);
    check_no_loss(&world);
    check_log(&world);
    for (size_t i = 0; i < 8; i++) {
        hazards[i] += world.hazards[i];
    }
    free(world.link.out);
    free(world.disk);
    free(world.disk_backup);
    free(world.model);
    free(world.model_backup);
}

static uint64_t first_seed = 1;
static uint64_t seed_count = SEEDS;

static uint64_t running_seed;

/* What a failed assertion, which ends in abort or longjmp, leaves to say. */
static int say_seed(void **state)
{
    (void)state;
    (void)fprintf(stderr, "last seed %" PRIu64 "\n", running_seed);
    return 0;
}

static void no_schedule_loses_doubles_or_reorders(void **state)
{
    (void)state;
    unsigned hazards[8] = { 0 };

    for (uint64_t seed = first_seed; seed < first_seed + seed_count; seed++) {
        running_seed = seed;
        run(seed, hazards);
    }
    (void)fprintf(stderr,
                  "%u cuts, %u crashes, %u changes of refusal, %u trims, "
                  "%u restored clients, %u restored servers\n",
                  hazards[0], hazards[1], hazards[2], hazards[3], hazards[4], hazards[5]);
    if (seed_count == SEEDS) {
        for (size_t i = 0; i < 6; i++) {
            assert_true(hazards[i] > 0);
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(no_schedule_loses_doubles_or_reorders, say_seed),
    };

    first_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : first_seed;
    seed_count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : seed_count;
    return cmocka_run_group_tests_name("client_random", tests, NULL, NULL);
}
