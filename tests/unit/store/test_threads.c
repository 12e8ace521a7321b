/* The flusher writes while a reader looks: what TSan is to see, and what a snapshot promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/base/check.h"
#include "store/reader.h"
#include "tests/unit/store/world.h"

#define SEGMENT_BYTES ((size_t)1024 * 1024)
#define SEGMENT_COUNT 4
#define BYTES_MAX     65536

struct flusher {
    struct world world;
    struct flush *flush;
    struct flush_user users[CHAT_USERS];
    atomic_size_t user_count; /* given by the flusher, taken by who reads ahead */
    atomic_bool done;
};

static void *run_flusher(void *context)
{
    struct flusher *flusher = context;
    enum flush_status status = FLUSH_SLICE;

    while (status < FLUSH_DONE) {
        status = flush_step(flusher->flush);
        if (status == FLUSH_PLANNED) {
            const size_t count = flush_get_user_count(flusher->flush);

            HF_ASSERT(count <= CHAT_USERS);
            for (size_t i = 0; i < count; i++) {
                flush_get_user(flusher->flush, i, &flusher->users[i]);
            }
            atomic_store_explicit(&flusher->user_count, count, memory_order_release);
        }
    }
    HF_ASSERT(status == FLUSH_DONE);
    atomic_store_explicit(&flusher->done, true, memory_order_release);
    return NULL;
}

static void *run_read_ahead(void *context)
{
    struct flusher *flusher = context;
    struct volume_txn *readers[WORLD_VOLUMES];
    struct hf_error error;

    for (int v = 0; v < WORLD_VOLUMES; v++) {
        readers[v] = volume_reader_open(flusher->world.scratch.volumes[v], &error);
        HF_ASSERT(readers[v] != NULL);
    }
    while (!atomic_load_explicit(&flusher->done, memory_order_acquire)) {
        const size_t count = atomic_load_explicit(&flusher->user_count, memory_order_acquire);

        for (size_t i = 0; i < count; i++) {
            flush_touch(readers[flusher->users[i].volume], &flusher->users[i]);
        }
    }
    for (int v = 0; v < WORLD_VOLUMES; v++) {
        volume_reader_close(readers[v]);
    }
    return NULL;
}

/* Whatever slice a snapshot falls behind: the head's entry is there, and of the right user. */
static void look(struct flusher *flusher, struct reader *reader, uint64_t *random)
{
    const struct chat_user *user = &flusher->world.model.users[random_next(random) % CHAT_USERS];
    struct read_request request = { .kind = READ_USER, .user = user->id, .bytes = BYTES_MAX };
    struct read_answer answer;

    reader_load(reader, &request, NULL, &answer);
    assert_true(answer.status != READ_FAILED);
    if (answer.status != READ_FOUND || answer.facts.head < answer.facts.floor) {
        return;
    }
    const uint64_t applied = answer.snapshot_lsn;

    request.kind = READ_RANGE;
    request.from = answer.facts.head;
    request.to = answer.facts.head;
    reader_load(reader, &request, NULL, &answer);
    assert_true(answer.snapshot_lsn >= applied);
    if (request.from >= user->facts.floor) { /* else retention may have come between */
        struct record record;
        size_t length;

        assert_int_equal(answer.status, READ_FOUND);
        assert_int_equal(record_parse(answer.entries, answer.entries_bytes, &record, &length),
                         RECORD_OK);
        assert_int_equal(record.entry.seq, request.from);
        assert_int_equal(record.entry.id.value, user->entries[request.from - 1].id.value);
    }
}

static void readers_look_on_while_a_flush_runs(void **state)
{
    (void)state;
    static struct flusher flusher;
    struct hf_error error;
    uint64_t random = 3;
    pthread_t threads[2];

    world_init(&flusher.world, 95, SEGMENT_BYTES, SEGMENT_COUNT);
    world_chat(&flusher.world, 3000);
    flusher.flush = world_open_flush(&flusher.world, WORLD_START_LSN,
                                     journal_durable_lsn(flusher.world.journal), 10, 0);
    struct reader *reader =
        reader_open(flusher.world.scratch.volumes, WORLD_VOLUMES, BYTES_MAX, &error);
    assert_non_null(reader);
    assert_int_equal(pthread_create(&threads[0], NULL, run_flusher, &flusher), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, run_read_ahead, &flusher), 0);
    while (!atomic_load_explicit(&flusher.done, memory_order_acquire)) {
        look(&flusher, reader, &random);
    }
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    reader_close(reader);
    flush_close(flusher.flush);
    chat_model_compare(&flusher.world.model, flusher.world.scratch.volumes, WORLD_VOLUMES,
                       journal_durable_lsn(flusher.world.journal));
    world_deinit(&flusher.world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_look_on_while_a_flush_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
