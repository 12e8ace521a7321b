#include "store/index.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "core/base/mutant.h"
#include "store/journal.h"

#define BUCKETS_FIRST 1024 /* a power of two */
#define NODE_NONE     UINT32_MAX

/* So many consecutive seqs of a user share a node, since a busy user's next one comes soon. */
#define BLOCK_SEQS 8
/* Of a place in a node. More than a journal of NODE_NONE entries can be long. */
#define PLACE_BITS 40

#define ENTRY_WORDS      2 /* of the keys */
#define CHECKPOINT_WORDS 3

/* The places of seqs block * BLOCK_SEQS and on: 0, or 1 + how far the pos lies beyond that of the
 * generation's first entry; in two parts. */
struct entry_node {
    uint64_t key[ENTRY_WORDS]; /* user, block */
    uint32_t low[BLOCK_SEQS];
    uint8_t high[BLOCK_SEQS];
};
_Static_assert(sizeof(struct entry_node) == 56, "paid by every 1 to 8 entries: docs/capacity.md");

struct checkpoint_node {
    uint64_t key[CHECKPOINT_WORDS]; /* user, conversation, block of the conversation */
    uint64_t seq;
};

/* Of a node in its chain. They lie close together, away from the nodes, so that growing, and
 * looking for what isn't there, mostly stay in the CPU's cache. */
struct link {
    uint32_t next;
    uint32_t hash;
};

/*
 * A hash table of numbered nodes, chained; a node begins with its key. It grows by one bucket at
 * each node beyond the first buckets: bucket `buckets - half` is split into itself and a new one.
 * A bucket's head is written when the bucket comes to be, so emptying the table touches only the
 * first ones.
 */
struct table {
    uint8_t *nodes; /* node_bytes each */
    struct link *links;
    uint32_t *heads;
    uint32_t node_bytes;
    uint32_t node_count;
    uint32_t node_count_max;
    uint32_t node_count_seen; /* the highest ever, whose pages are in use */
    uint32_t buckets;
    uint32_t half; /* the power of two at or below `buckets` */
};

struct generation {
    struct table entries;
    struct table checkpoints;
    uint64_t entry_count;
    uint64_t first_pos; /* what places count from */
};

struct index {
    struct generation generations[2];
    uint64_t entries_max;
    uint32_t current;
    bool has_older;
};

static void *reserve(size_t byte_count)
{
    void *memory = mmap(NULL, byte_count, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static uint32_t buckets_for(uint32_t node_count)
{
    return node_count < BUCKETS_FIRST ? BUCKETS_FIRST : node_count;
}

static void table_clear(struct table *table)
{
    table->node_count = 0;
    table->buckets = BUCKETS_FIRST;
    table->half = BUCKETS_FIRST;
    memset(table->heads, 0xff, BUCKETS_FIRST * sizeof table->heads[0]);
}

static bool table_open(struct table *table, uint32_t node_bytes, uint32_t node_count_max)
{
    table->node_bytes = node_bytes;
    table->node_count_max = node_count_max;
    table->nodes = reserve((size_t)node_bytes * node_count_max);
    table->links = reserve(sizeof table->links[0] * node_count_max);
    table->heads = reserve(sizeof table->heads[0] * buckets_for(node_count_max));
    if (table->nodes == NULL || table->links == NULL || table->heads == NULL) {
        return false;
    }
    table_clear(table);
    return true;
}

static void table_close(struct table *table)
{
    if (table->nodes != NULL) {
        munmap(table->nodes, (size_t)table->node_bytes * table->node_count_max);
    }
    if (table->links != NULL) {
        munmap(table->links, sizeof table->links[0] * table->node_count_max);
    }
    if (table->heads != NULL) {
        munmap(table->heads, sizeof table->heads[0] * buckets_for(table->node_count_max));
    }
}

static inline uint32_t hash_key(const uint64_t *key, uint32_t words)
{
    uint64_t hash = 0;

    for (uint32_t i = 0; i < words; i++) {
        /* The analyzer loses count of the words. NOLINTNEXTLINE(clang-analyzer-core.*) */
        hash = id_mix(hash + key[i] + UINT64_C(0x9e3779b97f4a7c15));
    }
    return (uint32_t)hash;
}

static uint32_t bucket_of(const struct table *table, uint32_t hash)
{
    const uint32_t wide = hash & (table->half * 2 - 1);
    return wide < table->buckets ? wide : wide & (table->half - 1);
}

static void *node_at(const struct table *table, uint32_t node)
{
    return table->nodes + (size_t)node * table->node_bytes;
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
        struct link *link = &table->links[node];
        const bool moves = (link->hash & (table->half * 2 - 1)) == added;
        uint32_t **end = moves ? &move : &keep;

        **end = node;
        *end = &link->next;
        node = link->next;
    }
    *keep = NODE_NONE;
    *move = NODE_NONE;
    if (table->buckets == table->half * 2) {
        table->half *= 2;
    }
    /* Whose turn it is next is known already; by then its first link is in the cache. */
    const uint32_t soon = table->heads[table->buckets - table->half];
    if (soon != NODE_NONE) {
        __builtin_prefetch(&table->links[soon], 1);
    }
}

/* The node of that key, or NULL. `words` is a constant where this is inlined. */
static inline void *table_find(const struct table *table, const uint64_t *key, uint32_t words,
                               uint32_t hash)
{
    uint32_t node = table->heads[bucket_of(table, hash)];

    while (node != NODE_NONE) {
        if (table->links[node].hash == hash &&
            memcmp(node_at(table, node), key, words * sizeof key[0]) == 0) {
            return node_at(table, node);
        }
        node = table->links[node].next;
    }
    return NULL;
}

/* A new node of that key, which isn't there yet. What follows the key may be anything. */
static inline void *table_add(struct table *table, const uint64_t *key, uint32_t words,
                              uint32_t hash)
{
    HF_ASSERT(table->node_count < table->node_count_max);
    if (table->node_count >= table->buckets) {
        table_grow(table);
    }

    const uint32_t node = table->node_count++;
    uint32_t *head = &table->heads[bucket_of(table, hash)];

    table->links[node] = (struct link){ *head, hash };
    *head = node;
    memcpy(node_at(table, node), key, words * sizeof key[0]);
    if (table->node_count > table->node_count_seen) {
        table->node_count_seen = table->node_count;
    }
    return node_at(table, node);
}

struct index *index_open(uint64_t entries_max, struct hf_error *error)
{
    struct index *index = calloc(1, sizeof *index);
    bool ok = index != NULL && entries_max > 0 && entries_max < NODE_NONE;

    for (int i = 0; ok && i < 2; i++) {
        struct generation *generation = &index->generations[i];

        /* At worst no two entries share a node. An entry has one checkpoint at most, so no journal
         * can overrun them; of what is reserved only what comes is used. */
        ok = table_open(&generation->entries, sizeof(struct entry_node), (uint32_t)entries_max) &&
             table_open(&generation->checkpoints, sizeof(struct checkpoint_node),
                        (uint32_t)entries_max);
    }
    if (!ok) {
        hf_error_set(error, EX_OSERR, 0, "index: no address space for %llu entries",
                     (unsigned long long)entries_max);
        index_close(index);
        return NULL;
    }
    index->entries_max = entries_max;
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

static uint64_t entry_place(const struct entry_node *block, uint64_t seq)
{
    const uint64_t i = seq % BLOCK_SEQS;
    return (uint64_t)block->high[i] << 32 | block->low[i];
}

void index_insert(struct index *index, struct user_id user, uint64_t seq, uint64_t pos)
{
    struct generation *generation = &index->generations[index->current];
    const uint64_t key[ENTRY_WORDS] = { user.value, seq / BLOCK_SEQS };
    const uint32_t hash = hash_key(key, ENTRY_WORDS);
    struct entry_node *block = table_find(&generation->entries, key, ENTRY_WORDS, hash);

    HF_ASSERT(generation->entry_count < index->entries_max);
    if (generation->entry_count++ == 0) {
        generation->first_pos = pos;
    }
    if (block == NULL) {
        block = table_add(&generation->entries, key, ENTRY_WORDS, hash);
        memset(block->low, 0, sizeof block->low);
        memset(block->high, 0, sizeof block->high);
    }

    const uint64_t place = pos - generation->first_pos + 1;

    HF_ASSERT(place != 0 && place >> PLACE_BITS == 0); /* a pos before the first fails this too */
    HF_ASSERT(entry_place(block, seq) == 0);           /* a number is given once */
    block->low[seq % BLOCK_SEQS] = (uint32_t)place;
    block->high[seq % BLOCK_SEQS] = (uint8_t)(place >> 32);
}

void index_insert_checkpoint(struct index *index, struct user_id user,
                             struct conversation_id conversation, uint64_t block, uint64_t seq)
{
    struct table *table = &index->generations[index->current].checkpoints;
    const uint64_t key[CHECKPOINT_WORDS] = { user.value, conversation.value, block };
    const uint32_t hash = hash_key(key, CHECKPOINT_WORDS);

    HF_ASSERT(seq != 0);
    HF_ASSERT_SLOW(table_find(table, key, CHECKPOINT_WORDS, hash) == NULL); /* given once */

    struct checkpoint_node *checkpoint = table_add(table, key, CHECKPOINT_WORDS, hash);

    checkpoint->seq = seq;
}

/* Whether the outline says what record_parse() says. (Unused without slow checks.) */
static __attribute__((unused)) bool outline_is_true(const struct record_outline *outline,
                                                    const uint8_t *bytes, size_t byte_count)
{
    struct record record;
    size_t length = 0;

    if (record_parse(bytes, byte_count, &record, &length) != RECORD_OK ||
        length != outline->byte_count || record.type != outline->type) {
        return false;
    }
    return record.type != RECORD_ENTRY ||
           (record.entry.user.value == outline->user.value && record.entry.seq == outline->seq &&
            record.entry.form == outline->form && record.entry.n == outline->n &&
            record.entry.conversation.value == outline->conversation.value);
}

void index_insert_records(struct index *index, const uint8_t *records, size_t byte_count,
                          uint64_t pos)
{
    size_t at = 0;

    while (at < byte_count) {
        /* Our own engine made it a moment ago. */
        const struct record_outline record = record_outline(records + at, byte_count - at);

        HF_ASSERT_SLOW(outline_is_true(&record, records + at, byte_count - at));
        if (record.type == RECORD_ENTRY) {
            index_insert(index, record.user, record.seq, journal_pos_after(pos, at));
            if (record.form == LOG_ENTRY_MESSAGE && record.n % INDEX_CHECKPOINT_EVERY == 0) {
                index_insert_checkpoint(index, record.user, record.conversation,
                                        record.n / INDEX_CHECKPOINT_EVERY, record.seq);
            }
        }
        at += record.byte_count;
    }
}

static uint64_t generation_find(const struct generation *generation, const uint64_t *key,
                                uint32_t hash, uint64_t seq)
{
    const struct entry_node *block = table_find(&generation->entries, key, ENTRY_WORDS, hash);
    const uint64_t place = block == NULL ? 0 : entry_place(block, seq);

    return place == 0 ? 0 : generation->first_pos + (place - 1);
}

uint64_t index_find(const struct index *index, struct user_id user, uint64_t seq)
{
    const uint64_t key[ENTRY_WORDS] = { user.value, seq / BLOCK_SEQS };
    const uint32_t hash = hash_key(key, ENTRY_WORDS);
    uint64_t pos = generation_find(&index->generations[index->current], key, hash, seq);

    if (pos == 0 && index->has_older) {
        pos = generation_find(&index->generations[1 - index->current], key, hash, seq);
    }
    return pos;
}

uint64_t index_find_checkpoint(const struct index *index, struct user_id user,
                               struct conversation_id conversation, uint64_t block)
{
    const uint64_t key[CHECKPOINT_WORDS] = { user.value, conversation.value, block };
    const uint32_t hash = hash_key(key, CHECKPOINT_WORDS);
    const struct checkpoint_node *found =
        table_find(&index->generations[index->current].checkpoints, key, CHECKPOINT_WORDS, hash);

    if (found == NULL && index->has_older) {
        found = table_find(&index->generations[1 - index->current].checkpoints, key,
                           CHECKPOINT_WORDS, hash);
    }
    return found == NULL ? 0 : found->seq;
}

void index_rotate(struct index *index)
{
    HF_ASSERT(!index->has_older);

    index->current = 1 - index->current;
    index->has_older = true;
    HF_ASSERT(index->generations[index->current].entry_count == 0);
    if (HF_MUTANT(INDEX_DROPPED_AT_ROTATE)) {
        index_drop(index);
        index->has_older = true;
    }
}

void index_drop(struct index *index)
{
    HF_ASSERT(index->has_older);

    struct generation *older = &index->generations[1 - index->current];

    index->has_older = false;
    older->entry_count = 0;
    table_clear(&older->entries);
    table_clear(&older->checkpoints);
}

uint64_t index_entry_count(const struct index *index)
{
    return index->generations[0].entry_count + index->generations[1].entry_count;
}

static uint64_t table_bytes(const struct table *table)
{
    return table->node_count_seen * (table->node_bytes + sizeof table->links[0]) +
           buckets_for(table->node_count_seen) * sizeof table->heads[0];
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
