#include <stdlib.h>
#include <string.h>

#include "core/tls/aead.h"
#include "tests/unit/tls/fixture.h"

struct vector {
    const char *name;
    const char *source;
    uint16_t suite;
    const char *key;
    const char *iv;
    const char *aad;
    const char *plaintext;
    const char *sealed; /* with the tag */
};

static const struct vector vectors[] = {
    { "aes_128_gcm_with_aad", "McGrew, Viega: The Galois/Counter Mode of Operation, test case 4",
      AEAD_AES_128_GCM_SHA256, "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
      "feedfacedeadbeeffeedfacedeadbeefabaddad2",
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6"
      "b525b16aedf5aa0de657ba637b39",
      "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84"
      "aa051ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47" },
    { "aes_256_gcm_with_aad", "McGrew, Viega, test case 16", AEAD_AES_256_GCM_SHA384,
      "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
      "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6"
      "b525b16aedf5aa0de657ba637b39",
      "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b105682"
      "8838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b" },
    { "chacha20_poly1305", "RFC 8439 2.8.2", AEAD_CHACHA20_POLY1305_SHA256,
      "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
      "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
      "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a2049662049"
      "20636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c20"
      "73756e73637265656e20776f756c642062652069742e",
      "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92"
      "728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b"
      "4831d7bc3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691" },
};

static struct aead_key vector_key(const struct vector *vector)
{
    struct aead_key key = { { 0 }, { 0 } };

    hex_decode(vector->key, key.key, sizeof key.key);
    hex_decode(vector->iv, key.iv, sizeof key.iv);
    return key;
}

static void vectors_seal_and_open(void **state)
{
    struct aead_cache *caches[] = { NULL, aead_cache_open(1) };

    (void)state;
    for (size_t index = 0; index < sizeof vectors / sizeof vectors[0]; index++) {
        const struct vector *vector = &vectors[index];
        const struct aead_key key = vector_key(vector);
        uint8_t aad[64];
        uint8_t bytes[256];
        uint8_t sealed[256];
        const size_t aad_bytes = hex_decode(vector->aad, aad, sizeof aad);
        const size_t byte_count = hex_decode(vector->plaintext, bytes, sizeof bytes);

        assert_int_equal(hex_decode(vector->sealed, sealed, sizeof sealed), byte_count + 16);
        for (size_t cache = 0; cache < 2; cache++) {
            uint8_t work[256];

            print_message("%s (%s)\n", vector->name, vector->source);
            memcpy(work, bytes, byte_count);
            assert_int_equal(aead_seal(caches[cache], vector->suite, &key, 0, aad, aad_bytes, work,
                                       byte_count, work + byte_count),
                             AEAD_OK);
            assert_memory_equal(work, sealed, byte_count + 16);
            assert_int_equal(aead_open(caches[cache], vector->suite, &key, 0, aad, aad_bytes, work,
                                       byte_count, work + byte_count),
                             AEAD_OK);
            assert_memory_equal(work, bytes, byte_count);
        }
    }
    aead_cache_close(caches[1]);
}

static void changed_bit_or_number_fails_to_open(void **state)
{
    struct aead_cache *cache = aead_cache_open(8);

    (void)state;
    for (size_t index = 0; index < sizeof vectors / sizeof vectors[0]; index++) {
        const struct aead_key key = vector_key(&vectors[index]);
        const uint16_t suite = vectors[index].suite;
        uint8_t bytes[4 + AEAD_TAG_BYTES] = "text";

        assert_int_equal(aead_seal(cache, suite, &key, 7, "aad", 3, bytes, 4, bytes + 4), AEAD_OK);
        for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
            uint8_t damaged[sizeof bytes];

            memcpy(damaged, bytes, sizeof bytes);
            damaged[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_int_equal(aead_open(cache, suite, &key, 7, "aad", 3, damaged, 4, damaged + 4),
                             AEAD_BAD_TAG);
        }
        for (unsigned bit = 0; bit < 64; bit++) {
            uint8_t copy[sizeof bytes];

            memcpy(copy, bytes, sizeof bytes);
            assert_int_equal(
                aead_open(cache, suite, &key, 7 ^ UINT64_C(1) << bit, "aad", 3, copy, 4, copy + 4),
                AEAD_BAD_TAG);
        }
        assert_int_equal(aead_open(cache, suite, &key, 7, "aae", 3, bytes, 4, bytes + 4),
                         AEAD_BAD_TAG);
    }
    aead_cache_close(cache);
}

static struct aead_key numbered_key(unsigned number)
{
    struct aead_key key = { { 0 }, { 0 } };

    memset(key.key, (int)number, sizeof key.key);
    key.key[0] = (uint8_t)(number >> 8);
    for (size_t at = 0; at < sizeof key.iv; at++) {
        key.iv[at] = (uint8_t)((number * 2654435761U) >> (at % 4 * 8));
    }
    return key;
}

static void use(struct aead_cache *cache, const struct aead_key *key)
{
    uint8_t bytes[1 + AEAD_TAG_BYTES] = { 0 };

    assert_int_equal(
        aead_seal(cache, AEAD_AES_128_GCM_SHA256, key, 0, NULL, 0, bytes, 1, bytes + 1), AEAD_OK);
}

static void known_key_is_set_up_once(void **state)
{
    struct aead_cache *cache = aead_cache_open(64);
    const struct aead_key key = numbered_key(1);
    struct aead_counters counters;

    (void)state;
    for (int time = 0; time < 10; time++) {
        const struct aead_key copy = key; /* found by content, wherever it lies */

        use(cache, &copy);
    }
    aead_cache_count(cache, &counters);
    assert_int_equal(counters.operations, 10);
    assert_int_equal(counters.key_setups, 1);
    assert_int_equal(counters.keyed_contexts, 1);
    aead_cache_close(cache);
}

static void same_iv_with_another_key_is_another_context(void **state)
{
    struct aead_cache *cache = aead_cache_open(4);
    struct aead_key keys[2] = { numbered_key(1), numbered_key(1) };
    uint8_t bytes[2][1 + AEAD_TAG_BYTES] = { { 0 }, { 0 } };
    struct aead_counters counters;

    (void)state;
    keys[1].key[15] ^= 1;
    for (int which = 0; which < 2; which++) {
        assert_int_equal(aead_seal(cache, AEAD_AES_128_GCM_SHA256, &keys[which], 0, NULL, 0,
                                   bytes[which], 1, bytes[which] + 1),
                         AEAD_OK);
    }
    assert_memory_not_equal(bytes[0], bytes[1], sizeof bytes[0]);
    aead_cache_count(cache, &counters);
    assert_int_equal(counters.keyed_contexts, 2);
    aead_cache_close(cache);
}

static void full_cache_stays_bounded_and_right(void **state)
{
    struct aead_cache *cache = aead_cache_open(16);
    struct aead_counters counters;

    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned number = 0; number < 200; number++) {
            const struct aead_key key = numbered_key(number);
            uint8_t kept[1 + AEAD_TAG_BYTES] = { 0 };
            uint8_t once[1 + AEAD_TAG_BYTES] = { 0 };

            assert_int_equal(
                aead_seal(cache, AEAD_AES_256_GCM_SHA384, &key, round, NULL, 0, kept, 1, kept + 1),
                AEAD_OK);
            assert_int_equal(
                aead_seal(NULL, AEAD_AES_256_GCM_SHA384, &key, round, NULL, 0, once, 1, once + 1),
                AEAD_OK);
            assert_memory_equal(kept, once, sizeof kept);
        }
    }
    aead_cache_count(cache, &counters);
    assert_true(counters.keyed_contexts <= 16);
    assert_true(counters.keyed_contexts >= 8);
    aead_cache_close(cache);
}

static void forgotten_key_is_set_up_anew(void **state)
{
    struct aead_cache *cache = aead_cache_open(4);
    const struct aead_key key = numbered_key(1);
    const struct aead_key other = numbered_key(2);
    struct aead_counters counters;

    (void)state;
    use(cache, &key);
    use(cache, &other);
    aead_cache_forget(cache, AEAD_AES_128_GCM_SHA256, &key);
    aead_cache_forget(cache, AEAD_AES_128_GCM_SHA256, &key); /* harmless */
    aead_cache_forget(NULL, AEAD_AES_128_GCM_SHA256, &key);
    aead_cache_count(cache, &counters);
    assert_int_equal(counters.keyed_contexts, 1);
    use(cache, &other);
    use(cache, &key);
    aead_cache_count(cache, &counters);
    assert_int_equal(counters.key_setups, 3);
    aead_cache_close(cache);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(vectors_seal_and_open),
    cmocka_unit_test(changed_bit_or_number_fails_to_open),
    cmocka_unit_test(known_key_is_set_up_once),
    cmocka_unit_test(same_iv_with_another_key_is_another_context),
    cmocka_unit_test(full_cache_stays_bounded_and_right),
    cmocka_unit_test(forgotten_key_is_set_up_anew),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
