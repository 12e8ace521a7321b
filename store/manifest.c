#include "store/manifest.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "store/journal.h"

#define LINE_BYTES_MAX 1536

/* ---- Writing ---- */

static size_t add_line(char *to, size_t at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static size_t add_line(char *to, size_t at, const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(to + at, MANIFEST_BYTES_MAX - at, format, arguments);
    va_end(arguments);
    HF_ASSERT(length > 0 && (size_t)length < MANIFEST_BYTES_MAX - at);
    return at + (size_t)length;
}

size_t manifest_encode(const struct manifest *manifest, char *to)
{
    size_t at = add_line(to, 0, "holdfast %d\ndirectory ", SCHEMA_FORMAT);

    for (size_t i = 0; i < SCHEMA_DIRECTORY_ID_BYTES; i++) {
        at = add_line(to, at, "%02x", manifest->directory_id[i]);
    }
    at = add_line(to, at,
                  "\nvolumes %u\nincarnation %" PRIu64 "\nepoch %" PRIu64 "\nstart_lsn %" PRIu64
                  "\njournal_set %u\nsegment_bytes %u\nsegments %u\ncores %u\nmap",
                  manifest->volume_count, manifest->incarnation, manifest->epoch,
                  manifest->start_lsn, manifest->journal_set, manifest->segment_bytes,
                  manifest->segment_count, manifest->core_count);
    for (uint16_t v = 0; v < manifest->volume_count; v++) {
        at = add_line(to, at, " %u", manifest->core_of_volume[v]);
    }
    at = add_line(to, at, "\napplied");
    for (uint16_t v = 0; v < manifest->volume_count; v++) {
        at = add_line(to, at, " %" PRIu64, manifest->applied[v]);
    }
    at = add_line(to, at, "\n");
    return add_line(to, at, "crc32c %08" PRIx32 "\n", crc32c(0, to, at));
}

/* ---- Reading ---- */

struct text {
    const char *at;
    const char *end;
    bool bad;
};

/* What follows the name on the next line, without the line's end. */
static void take_line(struct text *text, const char *name, char value[LINE_BYTES_MAX])
{
    const size_t name_length = strlen(name);
    const size_t left = (size_t)(text->end - text->at);
    const char *line_end = text->bad ? NULL : memchr(text->at, '\n', left);
    size_t length;

    value[0] = '\0';
    if (line_end == NULL || (size_t)(line_end - text->at) < name_length + 1 ||
        memcmp(text->at, name, name_length) != 0 || text->at[name_length] != ' ') {
        text->bad = true;
        return;
    }
    length = (size_t)(line_end - text->at) - name_length - 1;
    if (length >= LINE_BYTES_MAX || memchr(text->at, '\0', (size_t)(line_end - text->at)) != NULL) {
        text->bad = true;
        return;
    }
    memcpy(value, text->at + name_length + 1, length);
    value[length] = '\0';
    text->at = line_end + 1;
}

/* A number as it would be written: no sign, no zero before it, nothing behind it but `ends_with`.
 */
static uint64_t take_number(struct text *text, const char **at, uint64_t max, char ends_with)
{
    uint64_t number = 0;
    const char *digit = *at;

    while (*digit >= '0' && *digit <= '9') {
        const uint64_t unit = (uint64_t)(*digit - '0');

        if (unit > max || number > (max - unit) / 10 || (digit > *at && **at == '0')) {
            text->bad = true;
            return 0;
        }
        number = number * 10 + unit;
        digit++;
    }
    if (digit == *at || *digit != ends_with) {
        text->bad = true;
        return 0;
    }
    *at = digit;
    return number;
}

static uint64_t take_number_line(struct text *text, const char *name, uint64_t max)
{
    char value[LINE_BYTES_MAX];
    const char *at = value;

    take_line(text, name, value);
    return text->bad ? 0 : take_number(text, &at, max, '\0');
}

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static void take_directory_id(struct text *text, struct manifest *manifest)
{
    char value[LINE_BYTES_MAX] = "";

    take_line(text, "directory", value);
    if (strlen(value) != (size_t)SCHEMA_DIRECTORY_ID_BYTES * 2) {
        text->bad = true;
        return;
    }
    for (size_t i = 0; i < SCHEMA_DIRECTORY_ID_BYTES; i++) {
        const int high = hex_digit(value[2 * i]);
        const int low = hex_digit(value[2 * i + 1]);

        if (high < 0 || low < 0) {
            text->bad = true;
            return;
        }
        manifest->directory_id[i] = (uint8_t)(high << 4 | low);
    }
}

static void take_map(struct text *text, struct manifest *manifest)
{
    char value[LINE_BYTES_MAX];
    const char *at = value;
    const uint64_t core_max = manifest->core_count > 0 ? manifest->core_count - 1U : 0;

    take_line(text, "map", value);
    for (uint16_t v = 0; !text->bad && v < manifest->volume_count; v++) {
        const bool last = v + 1 == manifest->volume_count;

        manifest->core_of_volume[v] = (uint16_t)take_number(text, &at, core_max, last ? '\0' : ' ');
        at += !last;
    }
}

static void take_applied(struct text *text, struct manifest *manifest)
{
    char value[LINE_BYTES_MAX];
    const char *at = value;

    take_line(text, "applied", value);
    for (uint16_t v = 0; !text->bad && v < manifest->volume_count; v++) {
        const bool last = v + 1 == manifest->volume_count;

        manifest->applied[v] = take_number(text, &at, UINT64_MAX, last ? '\0' : ' ');
        at += !last;
    }
}

static bool in_range(const struct manifest *manifest)
{
    if (manifest->volume_count == 0 || manifest->start_lsn % JOURNAL_BLOCK_BYTES != 0) {
        return false;
    }
    if (manifest->journal_set == 0) {
        return manifest->core_count == 0;
    }
    return manifest->core_count > 0 && manifest->incarnation > 0 && manifest->start_lsn > 0 &&
           manifest->segment_count > 0 && manifest->segment_bytes > 0 &&
           manifest->segment_bytes % JOURNAL_BLOCK_BYTES == 0;
}

static bool checksum_right(const char *bytes, size_t body_bytes, struct text *text)
{
    char value[LINE_BYTES_MAX];
    char wanted[16];

    take_line(text, "crc32c", value);
    snprintf(wanted, sizeof wanted, "%08" PRIx32, crc32c(0, bytes, body_bytes));
    return !text->bad && strcmp(value, wanted) == 0 && text->at == text->end;
}

bool manifest_decode(const char *bytes, size_t byte_count, struct manifest *manifest,
                     struct hf_error *error)
{
    struct text text = { bytes, bytes + byte_count, false };
    uint64_t format;

    memset(manifest, 0, sizeof *manifest);
    format = take_number_line(&text, "holdfast", UINT32_MAX);
    if (!text.bad && format != SCHEMA_FORMAT) {
        hf_error_set(error, EX_DATAERR, 0,
                     "its format is %" PRIu64 ", and this program knows %d: it was written by %s "
                     "version",
                     format, SCHEMA_FORMAT, format > SCHEMA_FORMAT ? "a newer" : "an older");
        return false;
    }
    take_directory_id(&text, manifest);
    manifest->volume_count = (uint16_t)take_number_line(&text, "volumes", SCHEMA_VOLUMES_MAX);
    manifest->incarnation = take_number_line(&text, "incarnation", UINT64_MAX);
    manifest->epoch = take_number_line(&text, "epoch", UINT64_MAX);
    manifest->start_lsn = take_number_line(&text, "start_lsn", UINT64_MAX);
    manifest->journal_set = (uint32_t)take_number_line(&text, "journal_set", UINT32_MAX);
    manifest->segment_bytes = (uint32_t)take_number_line(&text, "segment_bytes", UINT32_MAX);
    manifest->segment_count = (uint32_t)take_number_line(&text, "segments", UINT16_MAX);
    manifest->core_count = (uint16_t)take_number_line(&text, "cores", MANIFEST_CORES_MAX);
    take_map(&text, manifest);
    take_applied(&text, manifest);

    const size_t body_bytes = (size_t)(text.at - bytes);

    if (text.bad || format == 0 || !checksum_right(bytes, body_bytes, &text) ||
        !in_range(manifest)) {
        hf_error_set(error, EX_DATAERR, 0, "damaged");
        return false;
    }
    return true;
}
