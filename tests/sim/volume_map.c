#include "tests/sim/volume_map.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "tests/sim/fail.h"

#define VERSIONS_KEPT 6 /* that a lagging reader may see */

/* ---- The treap: a reference is owned by each parent, version and transaction. ---- */

struct pair {
    uint32_t references;
    uint32_t key_bytes;
    uint32_t value_bytes;
    uint8_t bytes[]; /* key, value */
};

struct tree {
    uint32_t references;
    uint32_t priority; /* a hash of the key: higher ones are nearer the root */
    struct tree *left;
    struct tree *right;
    struct pair *pair;
};

static void *taken(size_t byte_count)
{
    void *memory = malloc(byte_count);

    SIM_CHECK(memory != NULL, "out of memory");
    return memory;
}

static struct tree *tree_hold(struct tree *tree)
{
    if (tree != NULL) {
        tree->references++;
    }
    return tree;
}

static void tree_drop(struct tree *tree)
{
    while (tree != NULL && --tree->references == 0) {
        struct tree *right = tree->right;

        tree_drop(tree->left);
        if (--tree->pair->references == 0) {
            free(tree->pair);
        }
        free(tree);
        tree = right;
    }
}

static int bytes_compare(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes)
{
    const int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);

    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int tree_compare(struct volume_bytes key, const struct tree *tree)
{
    return bytes_compare(key.bytes, key.byte_count, tree->pair->bytes, tree->pair->key_bytes);
}

static struct tree *tree_new(struct volume_bytes key, struct volume_bytes value)
{
    struct tree *tree = taken(sizeof *tree);
    struct pair *pair = taken(sizeof *pair + key.byte_count + value.byte_count);
    uint32_t hash = 2166136261U; /* FNV-1a */

    pair->references = 1;
    pair->key_bytes = (uint32_t)key.byte_count;
    pair->value_bytes = (uint32_t)value.byte_count;
    memcpy(pair->bytes, key.bytes, key.byte_count);
    if (value.byte_count > 0) {
        memcpy(pair->bytes + key.byte_count, value.bytes, value.byte_count);
    }
    for (size_t i = 0; i < key.byte_count; i++) {
        hash = (hash ^ key.bytes[i]) * 16777619U;
    }
    *tree = (struct tree){ .references = 1, .priority = hash ^ hash >> 15, .pair = pair };
    return tree;
}

/* Turns a reference into one that nobody shares. */
static struct tree *tree_own(struct tree *tree)
{
    if (tree->references == 1) {
        return tree;
    }

    struct tree *copy = taken(sizeof *copy);

    *copy = *tree;
    copy->references = 1;
    copy->pair->references++;
    (void)tree_hold(copy->left);
    (void)tree_hold(copy->right);
    tree->references--;
    return copy;
}

/* Both take over the reference and return another. */
static struct tree *tree_put(struct tree *tree, struct volume_bytes key, struct volume_bytes value)
{
    if (tree == NULL) {
        return tree_new(key, value);
    }
    tree = tree_own(tree);

    const int order = tree_compare(key, tree);

    if (order == 0) {
        struct tree *with_value = tree_new(key, value);
        struct pair *old = tree->pair;

        tree->pair = with_value->pair;
        free(with_value);
        if (--old->references == 0) {
            free(old);
        }
    } else if (order < 0) {
        struct tree *left = tree_put(tree->left, key, value);

        tree->left = left;
        if (left->priority > tree->priority) {
            tree->left = left->right;
            left->right = tree;
            return left;
        }
    } else {
        struct tree *right = tree_put(tree->right, key, value);

        tree->right = right;
        if (right->priority > tree->priority) {
            tree->right = right->left;
            right->left = tree;
            return right;
        }
    }
    return tree;
}

static struct tree *tree_join(struct tree *left, struct tree *right)
{
    if (left == NULL || right == NULL) {
        return left == NULL ? right : left;
    }
    if (left->priority > right->priority) {
        left = tree_own(left);
        left->right = tree_join(left->right, right);
        return left;
    }
    right = tree_own(right);
    right->left = tree_join(left, right->left);
    return right;
}

/* The key is there. */
static struct tree *tree_del(struct tree *tree, struct volume_bytes key)
{
    const int order = tree_compare(key, tree);

    tree = tree_own(tree);
    if (order < 0) {
        tree->left = tree_del(tree->left, key);
        return tree;
    }
    if (order > 0) {
        tree->right = tree_del(tree->right, key);
        return tree;
    }

    struct tree *rest = tree_join(tree->left, tree->right);

    tree->left = NULL;
    tree->right = NULL;
    tree_drop(tree);
    return rest;
}

/* The lowest at or after the key (after it, if `beyond`). */
static const struct tree *tree_find_from(const struct tree *tree, struct volume_bytes key,
                                         bool beyond)
{
    const struct tree *best = NULL;

    while (tree != NULL) {
        const int order = tree_compare(key, tree);

        if (order < 0 || (order == 0 && !beyond)) {
            best = tree;
            tree = tree->left;
        } else {
            tree = tree->right;
        }
    }
    return best;
}

/* The highest before the key. */
static const struct tree *tree_find_before(const struct tree *tree, struct volume_bytes key)
{
    const struct tree *best = NULL;

    while (tree != NULL) {
        if (tree_compare(key, tree) > 0) {
            best = tree;
            tree = tree->right;
        } else {
            tree = tree->left;
        }
    }
    return best;
}

/* ---- Volumes ---- */

struct version {
    struct tree *tables[VOLUME_TABLE_COUNT];
};

struct place {
    bool set;
    uint8_t key[VOLUME_KEY_BYTES_MAX];
    size_t key_bytes;
};

struct volume_txn {
    struct volume *volume;
    bool writes;
    bool begun;
    struct version version;
    struct place places[VOLUME_TABLE_COUNT];
    struct volume_txn *next; /* of the readers */
    uint8_t rotten[VOLUME_VALUE_BYTES_MAX];
};

struct volume {
    struct version versions[VERSIONS_KEPT]; /* the newest last */
    uint32_t version_count;
    struct version *unsynced; /* versions before each commit since the last sync, oldest first */
    uint32_t unsynced_count;
    struct volume_txn *writer;
    struct volume_txn *readers;
    uint32_t lag;
    bool full;
    uint64_t *fuse;
    struct prng *rot_prng;
    uint32_t rot; /* in a thousand */
};

static struct version version_hold(const struct version *version)
{
    for (int i = 0; i < VOLUME_TABLE_COUNT; i++) {
        (void)tree_hold(version->tables[i]);
    }
    return *version;
}

static void version_drop(struct version *version)
{
    for (int i = 0; i < VOLUME_TABLE_COUNT; i++) {
        tree_drop(version->tables[i]);
        version->tables[i] = NULL;
    }
}

static const struct version *version_newest(const struct volume *volume)
{
    return &volume->versions[volume->version_count - 1];
}

/* Takes over the version. */
static void version_add(struct volume *volume, struct version version)
{
    if (volume->version_count == VERSIONS_KEPT) {
        version_drop(&volume->versions[0]);
        memmove(&volume->versions[0], &volume->versions[1],
                (VERSIONS_KEPT - 1) * sizeof volume->versions[0]);
        volume->version_count--;
    }
    volume->versions[volume->version_count++] = version;
}

static void forget_unsynced(struct volume *volume)
{
    for (uint32_t i = 0; i < volume->unsynced_count; i++) {
        version_drop(&volume->unsynced[i]);
    }
    free(volume->unsynced);
    volume->unsynced = NULL;
    volume->unsynced_count = 0;
}

struct volume *volume_map_open(void)
{
    struct volume *volume = taken(sizeof *volume);

    *volume = (struct volume){ .version_count = 1 };
    return volume;
}

void volume_close(struct volume *volume)
{
    HF_ASSERT(volume->writer == NULL && volume->readers == NULL);
    for (uint32_t i = 0; i < volume->version_count; i++) {
        version_drop(&volume->versions[i]);
    }
    forget_unsynced(volume);
    free(volume);
}

static void txn_end(struct volume_txn *txn)
{
    version_drop(&txn->version);
    txn->begun = false;
    for (int i = 0; i < VOLUME_TABLE_COUNT; i++) {
        txn->places[i].set = false;
    }
}

static void reader_free(struct volume_txn *reader)
{
    if (reader->begun) {
        txn_end(reader);
    }
    free(reader);
}

static void end_transactions(struct volume *volume)
{
    for (struct volume_txn *reader = volume->readers; reader != NULL;) {
        struct volume_txn *next = reader->next;

        reader_free(reader);
        reader = next;
    }
    volume->readers = NULL;
    if (volume->writer != NULL) {
        volume_abort(volume->writer);
    }
    volume->lag = 0;
    volume->full = false;
    volume->fuse = NULL;
    volume->rot = 0;
}

void volume_map_kill(struct volume *volume)
{
    end_transactions(volume);
    volume_map_forget_versions(volume);
}

uint32_t volume_map_crash(struct volume *volume, struct prng *prng)
{
    const uint32_t lost = (uint32_t)prng_below(prng, volume->unsynced_count + 1U);
    struct version survives = *version_newest(volume);

    end_transactions(volume);
    if (lost > 0) {
        survives = volume->unsynced[volume->unsynced_count - lost];
    }
    survives = version_hold(&survives);
    forget_unsynced(volume);
    for (uint32_t i = 0; i < volume->version_count; i++) {
        version_drop(&volume->versions[i]);
    }
    volume->versions[0] = survives;
    volume->version_count = 1;
    return lost;
}

void volume_map_forget_versions(struct volume *volume)
{
    for (uint32_t i = 0; i + 1 < volume->version_count; i++) {
        version_drop(&volume->versions[i]);
    }
    volume->versions[0] = *version_newest(volume);
    volume->version_count = 1;
}

void volume_map_set_lag(struct volume *volume, uint32_t commits)
{
    volume->lag = commits;
}

void volume_map_set_full(struct volume *volume, bool full)
{
    volume->full = full;
}

void volume_map_set_rot(struct volume *volume, struct prng *prng, uint32_t per_mille)
{
    volume->rot_prng = prng;
    volume->rot = per_mille;
}

void volume_map_set_fuse(struct volume *volume, uint64_t *fuse)
{
    volume->fuse = fuse;
}

static bool burns(const struct volume *volume)
{
    if (volume->fuse == NULL) {
        return false;
    }
    if (*volume->fuse > 0) {
        --*volume->fuse;
    }
    return *volume->fuse == 0;
}

/* ---- Writing ---- */

enum volume_status volume_write_begin(struct volume *volume, size_t operations, size_t bytes,
                                      struct volume_txn **txn)
{
    HF_ASSERT(volume->writer == NULL);
    (void)bytes;
    if (volume->full && operations > 0) {
        return VOLUME_FULL;
    }

    struct volume_txn *writer = taken(sizeof *writer);

    *writer = (struct volume_txn){
        .volume = volume,
        .writes = true,
        .begun = true,
        .version = version_hold(version_newest(volume)),
    };
    volume->writer = writer;
    *txn = writer;
    return VOLUME_OK;
}

enum volume_status volume_put(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key, struct volume_bytes value)
{
    HF_ASSERT(txn->writes && key.byte_count >= 1 && key.byte_count <= VOLUME_KEY_BYTES_MAX &&
              value.byte_count <= VOLUME_VALUE_BYTES_MAX);
    if (burns(txn->volume)) {
        return VOLUME_BROKEN;
    }
    txn->version.tables[table] = tree_put(txn->version.tables[table], key, value);
    return VOLUME_OK;
}

enum volume_status volume_del(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key)
{
    struct volume_bytes value;

    HF_ASSERT(txn->writes);
    if (burns(txn->volume)) {
        return VOLUME_BROKEN;
    }

    const enum volume_status status = volume_get(txn, table, key, &value);

    if (status != VOLUME_OK) {
        return status;
    }
    txn->version.tables[table] = tree_del(txn->version.tables[table], key);
    return VOLUME_OK;
}

enum volume_status volume_del_range(struct volume_txn *txn, enum volume_table table,
                                    struct volume_bytes from, struct volume_bytes to)
{
    uint8_t key[VOLUME_KEY_BYTES_MAX];

    HF_ASSERT(txn->writes);
    if (burns(txn->volume)) {
        return VOLUME_BROKEN;
    }
    for (;;) {
        const struct tree *first = tree_find_from(txn->version.tables[table], from, false);

        if (first == NULL || tree_compare(to, first) <= 0) {
            return VOLUME_OK;
        }
        memcpy(key, first->pair->bytes, first->pair->key_bytes);
        txn->version.tables[table] = tree_del(txn->version.tables[table],
                                              (struct volume_bytes){ key, first->pair->key_bytes });
    }
}

enum volume_status volume_commit(struct volume_txn *txn)
{
    struct volume *volume = txn->volume;

    HF_ASSERT(txn->writes && volume->writer == txn);
    if (burns(volume)) {
        volume_abort(txn);
        return VOLUME_BROKEN;
    }
    volume->unsynced =
        realloc(volume->unsynced, (volume->unsynced_count + 1U) * sizeof *volume->unsynced);
    SIM_CHECK(volume->unsynced != NULL, "out of memory");
    volume->unsynced[volume->unsynced_count++] = version_hold(version_newest(volume));
    version_add(volume, version_hold(&txn->version));
    volume_abort(txn);
    return VOLUME_OK;
}

void volume_abort(struct volume_txn *txn)
{
    HF_ASSERT(txn->writes && txn->volume->writer == txn);
    txn->volume->writer = NULL;
    txn_end(txn);
    free(txn);
}

enum volume_status volume_sync(struct volume *volume)
{
    if (burns(volume)) {
        return VOLUME_BROKEN;
    }
    forget_unsynced(volume);
    return VOLUME_OK;
}

/* ---- Reading ---- */

struct volume_txn *volume_reader_open(struct volume *volume, struct hf_error *error)
{
    struct volume_txn *reader = taken(sizeof *reader);

    (void)error;
    *reader = (struct volume_txn){ .volume = volume, .next = volume->readers };
    volume->readers = reader;
    return reader;
}

void volume_reader_close(struct volume_txn *reader)
{
    if (reader == NULL) {
        return;
    }

    struct volume_txn **link = &reader->volume->readers;

    while (*link != reader) {
        link = &(*link)->next;
    }
    *link = reader->next;
    reader_free(reader);
}

enum volume_status volume_read_begin(struct volume_txn *reader)
{
    struct volume *volume = reader->volume;
    const uint32_t newest = volume->version_count - 1;

    HF_ASSERT(!reader->begun && !reader->writes);
    if (volume->rot > 0 && prng_chance(volume->rot_prng, volume->rot)) {
        return VOLUME_BROKEN;
    }
    reader->version =
        version_hold(&volume->versions[volume->lag > newest ? 0 : newest - volume->lag]);
    volume->lag = 0;
    reader->begun = true;
    return VOLUME_OK;
}

void volume_read_end(struct volume_txn *reader)
{
    HF_ASSERT(reader->begun && !reader->writes);
    txn_end(reader);
}

/* ---- In either ---- */

/* The value, or one bit of it is wrong. */
static struct volume_bytes value_of(struct volume_txn *txn, const struct tree *tree)
{
    const struct volume *volume = txn->volume;
    const struct pair *pair = tree->pair;
    const uint8_t *value = pair->bytes + pair->key_bytes;

    if (volume->rot == 0 || pair->value_bytes == 0 || !prng_chance(volume->rot_prng, volume->rot)) {
        return (struct volume_bytes){ value, pair->value_bytes };
    }
    memcpy(txn->rotten, value, pair->value_bytes);
    txn->rotten[prng_below(volume->rot_prng, pair->value_bytes)] ^=
        (uint8_t)(1U << prng_below(volume->rot_prng, 8));
    return (struct volume_bytes){ txn->rotten, pair->value_bytes };
}

/* The disk can't be read: less often than it is read wrongly. */
static bool read_fails(const struct volume *volume)
{
    return volume->rot > 0 && prng_chance(volume->rot_prng, volume->rot) &&
           prng_chance(volume->rot_prng, 300);
}

static enum volume_status found(struct volume_txn *txn, enum volume_table table,
                                const struct tree *tree, struct volume_bytes *key,
                                struct volume_bytes *value)
{
    struct place *place = &txn->places[table];

    if (read_fails(txn->volume)) {
        return VOLUME_BROKEN;
    }
    if (tree == NULL) {
        return VOLUME_ABSENT;
    }
    place->set = true;
    place->key_bytes = tree->pair->key_bytes;
    memcpy(place->key, tree->pair->bytes, tree->pair->key_bytes);
    *key = (struct volume_bytes){ tree->pair->bytes, tree->pair->key_bytes };
    *value = value_of(txn, tree);
    return VOLUME_OK;
}

enum volume_status volume_get(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key, struct volume_bytes *value)
{
    HF_ASSERT(txn->begun);

    const struct tree *tree = tree_find_from(txn->version.tables[table], key, false);

    if (read_fails(txn->volume)) {
        return VOLUME_BROKEN;
    }
    if (tree == NULL || tree_compare(key, tree) != 0) {
        return VOLUME_ABSENT;
    }
    *value = value_of(txn, tree);
    return VOLUME_OK;
}

enum volume_status volume_seek(struct volume_txn *txn, enum volume_table table,
                               struct volume_bytes key, struct volume_bytes *found_key,
                               struct volume_bytes *value)
{
    HF_ASSERT(txn->begun);
    return found(txn, table, tree_find_from(txn->version.tables[table], key, false), found_key,
                 value);
}

enum volume_status volume_seek_before(struct volume_txn *txn, enum volume_table table,
                                      struct volume_bytes key, struct volume_bytes *found_key,
                                      struct volume_bytes *value)
{
    HF_ASSERT(txn->begun);
    return found(txn, table, tree_find_before(txn->version.tables[table], key), found_key, value);
}

enum volume_status volume_next(struct volume_txn *txn, enum volume_table table,
                               struct volume_bytes *found_key, struct volume_bytes *value)
{
    const struct place *place = &txn->places[table];

    HF_ASSERT(txn->begun && place->set);
    return found(txn, table,
                 tree_find_from(txn->version.tables[table],
                                (struct volume_bytes){ place->key, place->key_bytes }, true),
                 found_key, value);
}

enum volume_status volume_prev(struct volume_txn *txn, enum volume_table table,
                               struct volume_bytes *found_key, struct volume_bytes *value)
{
    const struct place *place = &txn->places[table];

    HF_ASSERT(txn->begun && place->set);
    return found(txn, table,
                 tree_find_before(txn->version.tables[table],
                                  (struct volume_bytes){ place->key, place->key_bytes }),
                 found_key, value);
}

const char *volume_text(const struct volume *volume)
{
    return volume->full ? "no room" : "the machine has died";
}

const char *volume_reader_text(const struct volume_txn *reader)
{
    return volume_text(reader->volume);
}
