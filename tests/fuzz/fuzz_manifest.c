/* Whatever is taken for a manifest is written as the same text again. */
#include <string.h>

#include "core/base/check.h"
#include "store/manifest.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    char again[MANIFEST_BYTES_MAX];
    struct manifest manifest;
    struct hf_error error;

    if (manifest_decode((const char *)bytes, byte_count, &manifest, &error)) {
        HF_ASSERT(manifest_encode(&manifest, again) == byte_count);
        HF_ASSERT(memcmp(again, bytes, byte_count) == 0);
    }
}
