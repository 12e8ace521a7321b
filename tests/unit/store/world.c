#include "tests/unit/store/world.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <string.h>

void world_init(struct world *world, uint64_t seed, uint32_t segment_bytes, uint32_t segment_count)
{
    struct hf_error error = { 0 };

    memset(world, 0, sizeof *world);
    world->identity = (struct journal_identity){ 0, 3, 0 }; /* of a directory id of zeros */
    world->batch_tickets = 3;

    const struct journal_config config = { world->identity, WORLD_START_LSN,  segment_bytes,
                                           segment_count,   WORLD_RING_BYTES, false };

    memory_disk_init(&world->disk, segment_bytes, segment_count);
    world->journal = journal_open(&config, &error);
    world->index = index_open(INDEX_ENTRIES_FOR((uint64_t)segment_bytes * segment_count), &error);
    assert_non_null(world->journal);
    assert_non_null(world->index);
    chat_model_init(&world->model, seed);
    scratch_volumes_open(&world->scratch, WORLD_VOLUMES);
}

void world_deinit(struct world *world)
{
    flush_close(world->flush);
    scratch_volumes_close(&world->scratch);
    chat_model_deinit(&world->model);
    index_close(world->index);
    journal_close(world->journal);
    memory_disk_deinit(&world->disk);
}

void world_append(struct world *world, const uint8_t *bytes, size_t byte_count)
{
    uint64_t pos;

    if (journal_room(world->journal) < byte_count) {
        memory_disk_write_all(&world->disk, world->journal);
    }
    pos = journal_append(world->journal, ++world->ticket, bytes, byte_count);
    index_insert_records(world->index, bytes, byte_count, pos);
    if (id_mix(world->ticket) % world->batch_tickets == 0) {
        memory_disk_write_all(&world->disk, world->journal);
    }
}

void world_chat(struct world *world, unsigned steps)
{
    uint8_t bytes[CHAT_TICKET_BYTES];

    for (unsigned i = 0; i < steps; i++) {
        world_append(world, bytes, chat_model_step(&world->model, bytes));
    }
    memory_disk_write_all(&world->disk, world->journal);
}

static struct flush *start_flush(struct world *world, struct flush *flush, uint64_t from_lsn,
                                 uint64_t upto_lsn, uint32_t slice_records, size_t memory_max)
{
    struct journal_span spans[WORLD_SEGMENTS_MAX];
    struct hf_error error = { 0 };
    const struct flush_config config = {
        .source = memory_disk_source(&world->disk),
        .identity = world->identity,
        .spans = spans,
        .span_count =
            journal_get_spans(world->journal, from_lsn, upto_lsn, spans, WORLD_SEGMENTS_MAX),
        .from_lsn = from_lsn,
        .upto_lsn = upto_lsn,
        .volumes = world->scratch.volumes,
        .volume_count = WORLD_VOLUMES,
        .memory_max = memory_max,
        .slice_records = slice_records,
        .drops_max = slice_records < 100 ? slice_records : 0, /* small beside small slices */
    };

    if (flush == NULL) {
        flush = flush_open(&config, &error);
        assert_non_null(flush);
    } else {
        assert_true(flush_restart(flush, &config, &error));
    }
    return flush;
}

struct flush *world_open_flush(struct world *world, uint64_t from_lsn, uint64_t upto_lsn,
                               uint32_t slice_records, size_t memory_max)
{
    return start_flush(world, NULL, from_lsn, upto_lsn, slice_records, memory_max);
}

enum flush_status world_run_flush(struct flush *flush, unsigned steps)
{
    enum flush_status status = FLUSH_SLICE;

    while (steps-- > 0 && status < FLUSH_DONE) {
        status = flush_step(flush);
    }
    if (status > FLUSH_DONE) {
        print_message("%s\n", flush_text(flush));
    }
    return status;
}

void world_flush(struct world *world, uint32_t slice_records, size_t memory_max)
{
    struct journal_flush range;

    assert_true(journal_flush_begin(world->journal, &range));
    index_rotate(world->index);
    assert_true(journal_flush_ready(world->journal));
    if (world->flush_slice_records != slice_records) {
        flush_close(world->flush);
        world->flush = NULL;
        world->flush_slice_records = slice_records;
    }
    world->flush =
        start_flush(world, world->flush, range.from_lsn, range.upto_lsn, slice_records, memory_max);
    assert_int_equal(world_run_flush(world->flush, UINT32_MAX), FLUSH_DONE);
    journal_flush_end(world->journal);
    index_drop(world->index);
}
