/* Hands libFuzzer's inputs to the target. */
#include "tests/fuzz/fuzz.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    fuzz_one(bytes, byte_count);
    return 0;
}
