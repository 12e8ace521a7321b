/*
 * Runs a fuzz target where libFuzzer isn't linked (gcc): each file of a folder as it is, then
 * damaged a fixed number of times: bits, bytes, lengths, joins of two. The same on every machine;
 * a failure says which file and which round. ROUNDS_PER_SEED comes from meson.build.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

#define SEEDS_MAX       4096
#define SEED_BYTES_MAX  65536
#define INPUT_BYTES_MAX ((size_t)2 * SEED_BYTES_MAX)

struct seed {
    char *name;
    uint8_t *bytes;
    size_t byte_count;
};

static struct seed seeds[SEEDS_MAX];
static size_t seed_count;

/* xorshift64* (Vigna 2016). */
static uint64_t random_state = UINT64_C(0x853c49e6748fea9b);

static size_t random_below(size_t limit)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (size_t)((random_state * UINT64_C(0x2545f4914f6cdd1d) >> 16) % limit);
}

static _Noreturn void fail(const char *what, const char *name)
{
    (void)fprintf(stderr, "%s: %s\n", name, what);
    exit(1);
}

static void load_seed(const char *folder, const char *name)
{
    static uint8_t bytes[SEED_BYTES_MAX];
    char path[4096];
    struct seed *seed = &seeds[seed_count];

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL || seed_count == SEEDS_MAX) {
        fail("can't be read, or too many", path);
    }
    seed->byte_count = fread(bytes, 1, sizeof bytes, file);
    (void)fclose(file);
    seed->bytes = malloc(seed->byte_count + 1);
    seed->name = strdup(name);
    if (seed->bytes == NULL || seed->name == NULL) {
        fail("out of memory", path);
    }
    memcpy(seed->bytes, bytes, seed->byte_count);
    seed_count++;
}

static int by_name(const void *left, const void *right)
{
    const struct seed *one = left;
    const struct seed *other = right;

    return strcmp(one->name, other->name);
}

static void load_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    if (dir == NULL) {
        fail("can't be opened", folder);
    }
    while ((entry = readdir(dir)) != NULL) { /* NOLINT(concurrency-mt-unsafe): one thread */
        if (entry->d_name[0] != '.') {
            load_seed(folder, entry->d_name);
        }
    }
    (void)closedir(dir);
    qsort(seeds, seed_count, sizeof seeds[0], by_name); /* a folder has no order of its own */
}

/* On a block of its own, so that the sanitizer sees one byte too many. */
static void run(const uint8_t *bytes, size_t byte_count)
{
    uint8_t *block = malloc(byte_count + (byte_count == 0));

    if (block == NULL) {
        fail("out of memory", "run");
    }
    memcpy(block, bytes, byte_count);
    fuzz_one(block, byte_count);
    free(block);
}

static size_t damage(uint8_t *bytes, size_t byte_count)
{
    static const uint8_t edges[] = { 0x00, 0x01, 0x02, 0x7f, 0x80, 0xff };

    switch (random_below(5)) {
    case 0:
        bytes[random_below(byte_count)] ^= (uint8_t)(1U << random_below(8));
        return byte_count;
    case 1:
        bytes[random_below(byte_count)] = edges[random_below(sizeof edges)];
        return byte_count;
    case 2:
        bytes[random_below(byte_count)] = (uint8_t)random_below(256);
        return byte_count;
    case 3: {
        const struct seed *other = &seeds[random_below(seed_count)];
        const size_t at = random_below(byte_count + 1);
        memcpy(bytes + at, other->bytes, other->byte_count);
        return at + other->byte_count;
    }
    default:
        return byte_count < 2 ? byte_count : 1 + random_below(byte_count - 1);
    }
}

int main(int argument_count, char **arguments)
{
    static uint8_t input[INPUT_BYTES_MAX];
    size_t run_count = 0;

    for (int i = 1; i < argument_count; i++) {
        load_folder(arguments[i]);
    }
    if (seed_count == 0) {
        fail("no seeds", "usage: FOLDER...");
    }
    for (size_t i = 0; i < seed_count; i++) {
        run(seeds[i].bytes, seeds[i].byte_count);
        for (size_t round = 0; round < ROUNDS_PER_SEED && seeds[i].byte_count > 0; round++) {
            size_t byte_count = seeds[i].byte_count;
            memcpy(input, seeds[i].bytes, byte_count);
            for (size_t left = 1 + random_below(4); left > 0 && byte_count <= SEED_BYTES_MAX;
                 left--) {
                byte_count = damage(input, byte_count);
            }
            run(input, byte_count);
            run_count++;
        }
    }
    (void)printf("%zu seeds, %zu damaged inputs\n", seed_count, run_count);
    for (size_t i = 0; i < seed_count; i++) {
        free(seeds[i].name);
        free(seeds[i].bytes);
    }
    return 0;
}
