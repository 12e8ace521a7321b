#include "store/index.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "store/journal.h"

#define BUCKETS_FIRST 1024 /* a power of two */
#define NODE_NONE     UINT32_MAX

/*
 * A hash table of numbered nodes, chained. It grows by one bucket at each insert beyond the first
 * buckets: bucket `buckets - half` is split into itself and a new one. A bucket's head is written
 * when the bucket comes to be, so emptying the table touches only the first ones.
 */
struct table {
    uint64_t *nodes; /* `words` each: the key, then the value */
    uint32_t *next;
    uint32_t *heads;
    uint32_t words; /* of a key, 2 or 3 */
    uint32_t node_count;
    uint32_t node_count_max;
    uint32_t node_count_seen; /* the highest ever, whose pages are in use */
    uint32_t buckets;
    uint32_t half; /* the power of two at or below `buckets` */
};

struct generation {
    struct table entries;
    struct table checkpoints;
};

struct index {
    struct generation generations[2];
    uint32_t current;
    bool has_older;
};

static void *reserve(size_t byte_count)
{
    void *memory = mmap(NULL, byte_count, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static size_t table_node_bytes(const struct table *table)
{
    return (table->words + 1) * sizeof(uint64_t);
}

static uint32_t table_buckets_max(const struct table *table)
{
    return table->node_count_max < BUCKETS_FIRST ? BUCKETS_FIRST : table->node_count_max;
}

static void table_clear(struct table *table)
{
    table->node_count = 0;
    table->buckets = BUCKETS_FIRST;
    table->half = BUCKETS_FIRST;
    memset(table->heads, 0xff, BUCKETS_FIRST * sizeof table->heads[0]);
}

static bool table_open(struct table *table, uint32_t words, uint32_t node_count_max)
{
    table->words = words;
    table->node_count_max = node_count_max;
    table->nodes = reserve(table_node_bytes(table) * node_count_max);
    table->next = reserve(sizeof table->next[0] * node_count_max);
    table->heads = reserve(sizeof table->heads[0] * table_buckets_max(table));
    if (table->nodes == NULL || table->next == NULL || table->heads == NULL) {
        return false;
    }
    table_clear(table);
    return true;
}

static void table_close(struct table *table)
{
    if (table->nodes != NULL) {
        munmap(table->nodes, table_node_bytes(table) * table->node_count_max);
    }
    if (table->next != NULL) {
        munmap(table->next, sizeof table->next[0] * table->node_count_max);
    }
    if (table->heads != NULL) {
        munmap(table->heads, sizeof table->heads[0] * table_buckets_max(table));
    }
}

static uint64_t hash_key(const uint64_t *key, uint32_t words)
{
    uint64_t hash = 0;

    for (uint32_t i = 0; i < words; i++) {
        /* The analyzer loses count of the words. NOLINTNEXTLINE(clang-analyzer-core.*) */
        hash = id_mix(hash + key[i] + UINT64_C(0x9e3779b97f4a7c15));
    }
    return hash;
}

static uint32_t bucket_of(const struct table *table, uint64_t hash)
{
    const uint32_t wide = (uint32_t)(hash & (table->half * 2 - 1));
    return wide < table->buckets ? wide : wide & (table->half - 1);
}

static uint64_t *node_at(const struct table *table, uint32_t node)
{
    return table->nodes + (size_t)node * (table->words + 1);
}

/* Adds one bucket, which takes its part of the nodes of the one that has had them. */
static void table_grow(struct table *table)
{
    const uint32_t added = table->buckets;
    const uint32_t split = added - table->half;
    uint32_t *keep = &table->heads[split];
    uint32_t *move = &table->heads[added];
    uint32_t node = *keep;

    HF_ASSERT(split < table->half);
    table->buckets++;
    while (node != NODE_NONE) {
        const uint64_t hash = hash_key(node_at(table, node), table->words);
        const bool moves = (hash & (table->half * 2 - 1)) == added;
        uint32_t **end = moves ? &move : &keep;

        **end = node;
        *end = &table->next[node];
        node = table->next[node];
    }
    *keep = NODE_NONE;
    *move = NODE_NONE;
    if (table->buckets == table->half * 2) {
        table->half *= 2;
    }
}

static uint32_t table_find_node(const struct table *table, const uint64_t *key)
{
    uint32_t node = table->heads[bucket_of(table, hash_key(key, table->words))];

    while (node != NODE_NONE &&
           memcmp(node_at(table, node), key, table->words * sizeof key[0]) != 0) {
        node = table->next[node];
    }
    return node;
}

static uint64_t table_find(const struct table *table, const uint64_t *key)
{
    const uint32_t node = table_find_node(table, key);
    return node == NODE_NONE ? 0 : node_at(table, node)[table->words];
}

static void table_insert(struct table *table, const uint64_t *key, uint64_t value)
{
    HF_ASSERT(table->node_count < table->node_count_max);
    HF_ASSERT(value != 0);
    HF_ASSERT_SLOW(table_find_node(table, key) == NODE_NONE); /* a number is given once */

    if (table->node_count >= table->buckets && table->buckets < table_buckets_max(table)) {
        table_grow(table);
    }
    const uint32_t bucket = bucket_of(table, hash_key(key, table->words));
    const uint32_t node = table->node_count;

    memcpy(node_at(table, node), key, table->words * sizeof key[0]);
    node_at(table, node)[table->words] = value;
    table->next[node] = table->heads[bucket];
    table->heads[bucket] = node;
    table->node_count++;
    if (table->node_count > table->node_count_seen) {
        table->node_count_seen = table->node_count;
    }
}

struct index *index_open(uint64_t entries_max, struct hf_error *error)
{
    struct index *index = calloc(1, sizeof *index);
    bool ok = index != NULL && entries_max > 0 && entries_max < NODE_NONE;

    for (int i = 0; ok && i < 2; i++) {
        struct generation *generation = &index->generations[i];

        /* An entry has one checkpoint at most, so no journal can overrun them; of what is reserved
         * only what comes is used. */
        ok = table_open(&generation->entries, 2, (uint32_t)entries_max) &&
             table_open(&generation->checkpoints, 3, (uint32_t)entries_max);
    }
    if (!ok) {
        hf_error_set(error, EX_OSERR, 0, "index: no address space for %llu entries",
                     (unsigned long long)entries_max);
        index_close(index);
        return NULL;
    }
    return index;
}

void index_close(struct index *index)
{
    if (index == NULL) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        table_close(&index->generations[i].entries);
        table_close(&index->generations[i].checkpoints);
    }
    free(index);
}

void index_insert(struct index *index, struct user_id user, uint64_t seq, uint64_t pos)
{
    const uint64_t key[2] = { user.value, seq };
    table_insert(&index->generations[index->current].entries, key, pos);
}

void index_insert_checkpoint(struct index *index, struct user_id user,
                             struct conversation_id conversation, uint64_t block, uint64_t seq)
{
    const uint64_t key[3] = { user.value, conversation.value, block };
    table_insert(&index->generations[index->current].checkpoints, key, seq);
}

void index_insert_records(struct index *index, const uint8_t *records, size_t byte_count,
                          uint64_t pos)
{
    size_t at = 0;

    while (at < byte_count) {
        struct record record;
        size_t length = 0;
        const enum record_status status =
            record_parse(records + at, byte_count - at, &record, &length);

        HF_ASSERT(status == RECORD_OK); /* our own engine made it a moment ago */
        if (record.type == RECORD_ENTRY) {
            const struct log_entry *entry = &record.entry;

            index_insert(index, entry->user, entry->seq, journal_pos_after(pos, at));
            if (entry->form == LOG_ENTRY_MESSAGE && entry->n % INDEX_CHECKPOINT_EVERY == 0) {
                index_insert_checkpoint(index, entry->user, entry->conversation,
                                        entry->n / INDEX_CHECKPOINT_EVERY, entry->seq);
            }
        }
        at += length;
    }
}

uint64_t index_find(const struct index *index, struct user_id user, uint64_t seq)
{
    const uint64_t key[2] = { user.value, seq };
    uint64_t pos = table_find(&index->generations[index->current].entries, key);

    if (pos == 0 && index->has_older) {
        pos = table_find(&index->generations[1 - index->current].entries, key);
    }
    return pos;
}

uint64_t index_find_checkpoint(const struct index *index, struct user_id user,
                               struct conversation_id conversation, uint64_t block)
{
    const uint64_t key[3] = { user.value, conversation.value, block };
    uint64_t seq = table_find(&index->generations[index->current].checkpoints, key);

    if (seq == 0 && index->has_older) {
        seq = table_find(&index->generations[1 - index->current].checkpoints, key);
    }
    return seq;
}

void index_rotate(struct index *index)
{
    HF_ASSERT(!index->has_older);

    index->current = 1 - index->current;
    index->has_older = true;
    HF_ASSERT(index->generations[index->current].entries.node_count == 0);
}

void index_drop(struct index *index)
{
    HF_ASSERT(index->has_older);

    struct generation *older = &index->generations[1 - index->current];

    index->has_older = false;
    table_clear(&older->entries);
    table_clear(&older->checkpoints);
}

uint64_t index_entry_count(const struct index *index)
{
    return (uint64_t)index->generations[0].entries.node_count +
           index->generations[1].entries.node_count;
}

static uint64_t table_bytes(const struct table *table)
{
    return table->node_count_seen *
           (table_node_bytes(table) + sizeof table->next[0] + sizeof table->heads[0]);
}

uint64_t index_bytes(const struct index *index)
{
    uint64_t bytes = 0;

    for (int i = 0; i < 2; i++) {
        bytes += table_bytes(&index->generations[i].entries) +
                 table_bytes(&index->generations[i].checkpoints);
    }
    return bytes;
}
