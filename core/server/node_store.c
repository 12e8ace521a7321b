#include "core/server/node_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "store/recover.h"
#include "store/volume_lmdb.h"

#define SEGMENTS_MIN      4
#define SEGMENTS_MAX      256 /* what a flush or a read can name */
#define RING_BYTES_MIN    UINT64_C(131072)
#define RING_BYTES_MAX    (1 << 20) /* the last of the journal, in memory: half is the largest batch */
#define PROGRESS_AFTER_NS (2 * CLOCK_NS_PER_S)
#define PROGRESS_EVERY_NS (5 * CLOCK_NS_PER_S)
#define FULL_RETRY_NS     (1 * CLOCK_NS_PER_S)

/* ---- the journals' sizes */

bool node_plan_journal(const struct config *config, uint32_t core_count,
                       struct node_journal *journal, struct hf_error *error)
{
    const uint64_t block = JOURNAL_BLOCK_BYTES;
    const uint64_t share = config->journal_bytes / core_count;
    uint64_t segment = config->journal_segment_bytes;

    if (segment > share / SEGMENTS_MIN) {
        segment = share / SEGMENTS_MIN;
    }
    if (segment < share / SEGMENTS_MAX) {
        segment = share / SEGMENTS_MAX + block - 1;
    }
    if (segment > UINT32_MAX) {
        segment = UINT32_MAX;
    }
    segment = segment / block * block;
    if (segment < 2 * RING_BYTES_MIN) {
        hf_error_set(
            error, EX_CONFIG, 0, "journal_bytes = %" PRIu64 ": %u cores need %" PRIu64 " or more",
            config->journal_bytes, core_count, RING_BYTES_MIN * 2 * SEGMENTS_MIN * core_count);
        return false;
    }
    journal->segment_bytes = (uint32_t)segment;
    journal->segment_count = (uint32_t)(share / segment);
    if (journal->segment_count > SEGMENTS_MAX) {
        journal->segment_count = SEGMENTS_MAX;
    }
    journal->ring_bytes = (uint32_t)RING_BYTES_MIN;
    while (journal->ring_bytes < RING_BYTES_MAX && journal->ring_bytes <= segment / 4) {
        journal->ring_bytes *= 2;
    }
    return true;
}

/* ---- opening */

bool node_open_directory(struct node *node, struct hf_error *error)
{
    struct directory_options options = {
        .create = !node->restoring,
        .buffered = node->buffered,
        .volume_count = (uint16_t)node->config->volumes,
    };

    if (getrandom(options.new_id, sizeof options.new_id, 0) != (ssize_t)sizeof options.new_id) {
        hf_error_set(error, EX_OSERR, errno, "getrandom");
        return false;
    }
    node->directory = directory_open(node->config->data_dir, &options, error);
    return node->directory != NULL;
}

static bool open_volume(struct node *node, uint16_t i, struct hf_error *error)
{
    const struct manifest *manifest = directory_manifest(node->directory);
    /* In a directory that has served, a volume that isn't there is lost: never made anew. */
    const struct volume_options options = {
        .create = directory_is_new(node->directory),
        .buffered = node->buffered,
    };
    struct schema_identity identity = {
        .format = SCHEMA_FORMAT,
        .volume = i,
        .volume_count = manifest->volume_count,
    };
    char path[4096];

    memcpy(identity.directory_id, manifest->directory_id, sizeof identity.directory_id);
    if (!directory_volume_path(node->directory, i, path, sizeof path)) {
        hf_error_set(error, EX_CONFIG, 0, "data_dir: the path is too long");
        return false;
    }
    node->volumes[i] = volume_open(path, &options, error);
    if (node->volumes[i] == NULL) {
        hf_error_prepend(error, "volume %u", i);
        return false;
    }
    return recover_prepare_volume(node->volumes[i], &identity, error);
}

static bool open_volumes(struct node *node, struct hf_error *error)
{
    for (uint16_t i = 0; i < node->volume_count; i++) {
        if (!open_volume(node, i, error)) {
            return false;
        }
    }
    return true;
}

static void close_volumes(struct node *node)
{
    for (uint16_t i = 0; i < node->volume_count; i++) {
        volume_close(node->volumes[i]);
        node->volumes[i] = NULL;
    }
}

/* ---- recovery */

static struct recover *open_recovery(struct node *node, struct journal_source *sources,
                                     struct hf_error *error)
{
    const struct manifest *manifest = directory_manifest(node->directory);
    const bool any = manifest->journal_set != 0;
    struct recover_config config = {
        .incarnation = manifest->incarnation,
        .start_lsn = manifest->start_lsn,
        .core_count = any ? manifest->core_count : 0,
        .segment_bytes = manifest->segment_bytes,
        .segment_count = manifest->segment_count,
        .marks = any,
        .core_of_volume = manifest->core_of_volume,
        .sources = sources,
        .applied_min = manifest->applied,
        .volumes = node->volumes,
        .volume_count = node->volume_count,
    };

    memcpy(config.directory_id, manifest->directory_id, sizeof config.directory_id);
    if (any && !directory_open_segments(node->directory, error)) {
        return NULL;
    }
    for (uint16_t i = 0; i < config.core_count; i++) {
        sources[i] = directory_source(node->directory, i);
    }
    return recover_open(&config, error);
}

struct progress {
    uint64_t began_ns;
    uint64_t said_ns;
    bool said_full;
};

static void say_progress(struct node *node, const struct recover *recover,
                         struct progress *progress)
{
    const uint64_t now_ns = clock_now_ns();
    struct recover_stats stats;

    if (now_ns - progress->began_ns < PROGRESS_AFTER_NS ||
        now_ns - progress->said_ns < PROGRESS_EVERY_NS) {
        return;
    }
    progress->said_ns = now_ns;
    recover_get_stats(recover, &stats);
    log_event(node->log, LOG_INFO, "recovering",
              "percent=%u journal_bytes=%" PRIu64 " records=%" PRIu64, stats.permille / 10,
              stats.bytes, stats.records);
}

/* True: done. Signals and /live are served meanwhile. */
static bool run_recovery(struct node *node, struct recover *recover, struct progress *progress,
                         struct hf_error *error)
{
    for (;;) {
        const enum recover_status status = recover_step(recover, error);

        if (status == RECOVER_DONE) {
            return true;
        }
        if (status == RECOVER_REFUSED) {
            return false;
        }
        if (status == RECOVER_FULL && !progress->said_full) {
            progress->said_full = true;
            log_event(node->log, LOG_ERROR, "disk_full",
                      "reason=\"%s\" note=\"recovery goes on when there is room\"", error->text);
        }
        say_progress(node, recover, progress);
        node_wait(node, status == RECOVER_FULL ? FULL_RETRY_NS : 0);
        if (node->stop_signals != 0) {
            *error = (struct hf_error){ 0 };
            return false;
        }
    }
}

static bool recover(struct node *node, struct hf_error *error)
{
    struct journal_source sources[MANIFEST_CORES_MAX];
    struct progress progress = { .began_ns = clock_now_ns() };
    struct recover *recovery = open_recovery(node, sources, error);
    struct recover_stats stats;

    if (recovery == NULL) {
        return false;
    }
    if (!run_recovery(node, recovery, &progress, error)) {
        recover_close(recovery);
        return false;
    }
    recover_get_stats(recovery, &stats);
    node->start_lsn = recover_next_lsn(recovery);
    recover_close(recovery);
    log_event(node->log, LOG_INFO, "recovered",
              "records=%" PRIu64 " bytes=%" PRIu64 " torn_batches=%u ms=%" PRIu64, stats.records,
              stats.bytes, stats.torn_batches,
              (clock_now_ns() - progress.began_ns) / CLOCK_NS_PER_MS);
    return true;
}

/*
 * The epoch that no log is below from now on. After a restore: above all that were ever used, by
 * what is here and, as far as the clock can say it, by what was lost.
 */
static bool choose_epoch(struct node *node, uint64_t *epoch, struct hf_error *error)
{
    const uint64_t now_s = clock_unix_ms() / 1000;

    *epoch = directory_manifest(node->directory)->epoch;
    if (!node->restoring) {
        return true;
    }
    for (uint16_t i = 0; i < node->volume_count; i++) {
        if (!recover_find_epoch(node->volumes[i], epoch, &node->users, error)) {
            hf_error_prepend(error, "volume %u", i);
            return false;
        }
    }
    *epoch = now_s > *epoch ? now_s : *epoch + 1;
    return true;
}

static bool read_applied(struct node *node, uint64_t *applied, struct hf_error *error)
{
    for (uint16_t i = 0; i < node->volume_count; i++) {
        if (!recover_read_applied(node->volumes[i], &applied[i], error)) {
            hf_error_prepend(error, "volume %u", i);
            return false;
        }
    }
    return true;
}

static bool begin_run(struct node *node, struct hf_error *error)
{
    uint16_t core_of_volume[SCHEMA_VOLUMES_MAX];
    uint64_t applied[SCHEMA_VOLUMES_MAX];
    struct directory_run run = {
        .core_count = (uint16_t)node->core_count,
        .core_of_volume = core_of_volume,
        .applied = applied,
        .segment_bytes = node->journal.segment_bytes,
        .segment_count = node->journal.segment_count,
        .start_lsn = node->start_lsn,
    };

    for (uint16_t i = 0; i < node->volume_count; i++) {
        core_of_volume[i] = (uint16_t)(i % node->core_count);
        node->core_of_volume[i] = (uint8_t)core_of_volume[i];
    }
    if (!choose_epoch(node, &run.epoch, error) || !read_applied(node, applied, error) ||
        !directory_begin_run(node->directory, &run, error)) {
        return false;
    }
    node->incarnation = directory_manifest(node->directory)->incarnation;
    return true;
}

bool node_open_store(struct node *node, struct hf_error *error)
{
    node->volume_count = directory_manifest(node->directory)->volume_count;
    if (!open_volumes(node, error) || !recover(node, error)) {
        return false;
    }
    /* Recovery's transactions are large, and an open volume keeps the memory of the largest. */
    close_volumes(node);
    return open_volumes(node, error) && begin_run(node, error);
}

void node_close_store(struct node *node)
{
    close_volumes(node);
    if (node->directory != NULL) {
        directory_close(node->directory);
    }
}

/* ---- checking */

static bool check_new_directory(const char *path, struct hf_error *error)
{
    char parent[CONFIG_TEXT_BYTES_MAX];

    (void)snprintf(parent, sizeof parent, "%s", path);
    for (size_t length = strlen(parent); length > 1 && parent[length - 1] == '/'; length--) {
        parent[length - 1] = '\0';
    }

    char *slash = strrchr(parent, '/');

    if (slash == NULL) {
        (void)snprintf(parent, sizeof parent, ".");
    } else {
        slash[slash == parent ? 1 : 0] = '\0';
    }
    if (access(parent, W_OK | X_OK) != 0) {
        hf_error_set(error, EX_CANTCREAT, errno, "data_dir %s: can't be made in %s", path, parent);
        return false;
    }
    return true;
}

static bool check_manifest(const char *path, const struct config *config, struct hf_error *error)
{
    char name[CONFIG_TEXT_BYTES_MAX + 16];
    char text[MANIFEST_BYTES_MAX];
    struct manifest manifest;

    (void)snprintf(name, sizeof name, "%s/manifest", path);

    FILE *file = fopen(name, "re");

    if (file == NULL && errno == ENOENT) {
        return true; /* a new one */
    }
    if (file == NULL) {
        hf_error_set(error, EX_NOPERM, errno, "%s", name);
        return false;
    }
    const size_t byte_count = fread(text, 1, sizeof text, file);
    (void)fclose(file);
    if (!manifest_decode(text, byte_count, &manifest, error)) {
        hf_error_prepend(error, "%s", name);
        return false;
    }
    if (manifest.volume_count != config->volumes) {
        hf_error_set(error, EX_CONFIG, 0,
                     "volumes = %" PRIu64 ": %s was made with %u, which is for ever",
                     config->volumes, path, manifest.volume_count);
        return false;
    }
    return true;
}

bool node_check_directory(const struct config *config, struct hf_error *error)
{
    const char *path = config->data_dir;
    struct stat facts;

    if (stat(path, &facts) != 0) {
        if (errno != ENOENT) {
            hf_error_set(error, EX_NOPERM, errno, "data_dir %s", path);
            return false;
        }
        return check_new_directory(path, error);
    }
    if (!S_ISDIR(facts.st_mode)) {
        hf_error_set(error, EX_CONFIG, 0, "data_dir %s: not a directory", path);
        return false;
    }
    if (access(path, R_OK | W_OK | X_OK) != 0) {
        hf_error_set(error, EX_NOPERM, errno, "data_dir %s", path);
        return false;
    }
    return check_manifest(path, config, error);
}
