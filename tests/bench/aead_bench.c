/*
 * What it costs to seal and to open a small record, by the library that this program is linked with.
 *
 *   aead_bench [BYTES [KEYS]]
 *
 * BYTES (128) of data under AES-128-GCM, as many keys (64) in turn as a core has busy connections, all
 * kept keyed. Prints, one object a line, the median of five rounds:
 *   {"figure": "aead.seal", "value": N, "unit": "ns", "library": "..."}
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "core/base/check.h"
#include "core/tls/aead.h"

#define ROUNDS         5
#define ROUND_CALLS    200000
#define KEYS_MAX       512
#define BYTES_MAX      16384
#define RECORD_HEADER  5
#define CONTEXTS_A_KEY 4 /* so that no key gives way to another of its set */

struct bench {
    struct aead_cache *cache;
    struct aead_key keys[KEYS_MAX];
    size_t key_count;
    size_t byte_count;
    uint8_t bytes[BYTES_MAX];
    uint8_t tags[KEYS_MAX][AEAD_TAG_BYTES];
};

static double now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int compare(const void *left, const void *right)
{
    const double a = *(const double *)left;
    const double b = *(const double *)right;

    return (a > b) - (a < b);
}

/* Opens under wrong tags: the work is the same, and the answer says that it was done. */
static double run_round(struct bench *bench, bool opening)
{
    static const uint8_t header[RECORD_HEADER] = { 23, 3, 3, 0, 145 };
    const double began = now_ns();

    for (uint64_t call = 0; call < ROUND_CALLS; call++) {
        const struct aead_key *key = &bench->keys[call % bench->key_count];
        uint8_t *tag = bench->tags[call % bench->key_count];
        const enum aead_result result =
            opening ? aead_open(bench->cache, AEAD_AES_128_GCM_SHA256, key, call, header,
                                sizeof header, bench->bytes, bench->byte_count, tag)
                    : aead_seal(bench->cache, AEAD_AES_128_GCM_SHA256, key, call, header,
                                sizeof header, bench->bytes, bench->byte_count, tag);

        HF_ASSERT(result == (opening ? AEAD_BAD_TAG : AEAD_OK));
    }
    return (now_ns() - began) / ROUND_CALLS;
}

static void print(const char *name, struct bench *bench, bool opening)
{
    double rounds[ROUNDS];

    (void)run_round(bench, opening); /* keys are set up */
    for (int i = 0; i < ROUNDS; i++) {
        rounds[i] = run_round(bench, opening);
    }
    qsort(rounds, ROUNDS, sizeof rounds[0], compare);
    (void)printf(
        "{\"figure\": \"aead.%s\", \"value\": %.1f, \"unit\": \"ns\", \"library\": \"%s\"}\n", name,
        rounds[ROUNDS / 2], aead_library_name());
}

static size_t number(const char *text, size_t most)
{
    char *end;
    const unsigned long value = strtoul(text, &end, 10);

    if (*text == '\0' || *end != '\0' || value == 0 || value > most) {
        (void)fprintf(stderr, "aead_bench: \"%s\" is no number from 1 to %zu\n", text, most);
        exit(EX_USAGE);
    }
    return value;
}

int main(int argc, char **argv)
{
    static struct bench bench;

    bench.byte_count = argc > 1 ? number(argv[1], BYTES_MAX) : 128;
    bench.key_count = argc > 2 ? number(argv[2], KEYS_MAX) : 64;
    bench.cache = aead_cache_open(bench.key_count * CONTEXTS_A_KEY);
    if (bench.cache == NULL) {
        (void)fprintf(stderr, "aead_bench: no memory\n");
        return EX_OSERR;
    }
    for (size_t key = 0; key < bench.key_count; key++) {
        for (size_t i = 0; i < 16; i++) {
            bench.keys[key].key[i] = (uint8_t)(key * 31 + i);
        }
        for (size_t i = 0; i < AEAD_IV_BYTES; i++) {
            bench.keys[key].iv[i] = (uint8_t)(key * 7 + i * 13);
        }
    }
    print("seal", &bench, false);
    memset(bench.tags, 0x5a, sizeof bench.tags);
    print("open", &bench, true);
    aead_cache_close(bench.cache);
    return EX_OK;
}
