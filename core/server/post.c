#include "core/server/post.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/server/storage.h"

static uint32_t power_of_two(uint64_t at_least)
{
    uint32_t power = 16;

    while (power < at_least) {
        power *= 2;
    }
    return power;
}

static bool open_row(struct mailbox **row, uint32_t core_count, uint32_t capacity,
                     struct bell *bell, struct hf_error *error)
{
    *row = aligned_alloc(64, core_count * sizeof **row);
    if (*row == NULL) {
        hf_error_set(error, EX_OSERR, 0, "mailboxes: no memory");
        return false;
    }
    memset(*row, 0, core_count * sizeof **row);
    for (uint32_t i = 0; i < core_count; i++) {
        if (!mailbox_open(&(*row)[i], sizeof(struct mail), capacity, bell, error)) {
            return false;
        }
    }
    return true;
}

static bool open_core(struct post_core *core, uint32_t core_count, const struct config *config,
                      struct hf_error *error)
{
    /*
     * A door has at most handshakes_max connections on their way, each with two messages, and a few
     * tokens to check. The other half is for MAIL_LEFT, which there may be any number of.
     */
    const uint32_t doors = power_of_two((config->handshakes_max + POST_TOKENS_MAX) * 4);
    const uint32_t streams = power_of_two(UINT64_C(2) * POST_STREAM_CELLS_ALL);
    /* The other half is for what the reader has found to expire, and its return. */
    const uint32_t loads = power_of_two((uint64_t)STORAGE_LOADS_MAX * 2);
    const uint32_t few = 16;

    return bell_open(&core->reactor_bell, error) && bell_open(&core->door_bell, error) &&
           bell_open(&core->flusher_bell, error) && bell_open(&core->reader_bell, error) &&
           open_row(&core->door_to_reactor, core_count, doors, &core->reactor_bell, error) &&
           open_row(&core->reactor_to_door, core_count, doors, &core->door_bell, error) &&
           open_row(&core->reactor_to_reactor, core_count, streams, &core->reactor_bell, error) &&
           mailbox_open(&core->reactor_to_flusher, sizeof(struct mail), few, &core->flusher_bell,
                        error) &&
           mailbox_open(&core->flusher_to_reactor, sizeof(struct mail), few, &core->reactor_bell,
                        error) &&
           mailbox_open(&core->reactor_to_reader, sizeof(struct mail), loads, &core->reader_bell,
                        error) &&
           mailbox_open(&core->reader_to_reactor, sizeof(struct mail), loads, &core->reactor_bell,
                        error) &&
           mailbox_open(&core->node_to_reactor, sizeof(struct mail), few, &core->reactor_bell,
                        error) &&
           mailbox_open(&core->node_to_door, sizeof(struct mail), few, &core->door_bell, error);
}

bool post_open(struct post *post, uint32_t core_count, const struct config *config,
               struct hf_error *error)
{
    post->core_count = core_count;
    post->cores = aligned_alloc(64, core_count * sizeof *post->cores);
    if (post->cores == NULL) {
        hf_error_set(error, EX_OSERR, 0, "mailboxes: no memory");
        return false;
    }
    memset(post->cores, 0, core_count * sizeof *post->cores);
    for (uint32_t i = 0; i < core_count; i++) { /* so that a failure half-way can be undone */
        post->cores[i].reactor_bell.fd = -1;
        post->cores[i].door_bell.fd = -1;
        post->cores[i].flusher_bell.fd = -1;
        post->cores[i].reader_bell.fd = -1;
    }
    for (uint32_t i = 0; i < core_count; i++) {
        if (!open_core(&post->cores[i], core_count, config, error)) {
            hf_error_prepend(error, "core %u: mailboxes", i);
            post_close(post);
            return false;
        }
    }
    return true;
}

static void close_row(struct mailbox *row, uint32_t core_count)
{
    for (uint32_t i = 0; row != NULL && i < core_count; i++) {
        mailbox_close(&row[i]);
    }
    free(row);
}

void post_close(struct post *post)
{
    for (uint32_t i = 0; post->cores != NULL && i < post->core_count; i++) {
        struct post_core *core = &post->cores[i];

        close_row(core->door_to_reactor, post->core_count);
        close_row(core->reactor_to_door, post->core_count);
        close_row(core->reactor_to_reactor, post->core_count);
        mailbox_close(&core->reactor_to_flusher);
        mailbox_close(&core->flusher_to_reactor);
        mailbox_close(&core->reactor_to_reader);
        mailbox_close(&core->reader_to_reactor);
        mailbox_close(&core->node_to_reactor);
        mailbox_close(&core->node_to_door);
        bell_close(&core->reactor_bell);
        bell_close(&core->door_bell);
        bell_close(&core->flusher_bell);
        bell_close(&core->reader_bell);
    }
    free(post->cores);
    post->cores = NULL;
}

bool post_give(struct mailbox *mailbox, const struct mail *mail)
{
    if (!mailbox_give(mailbox, mail)) {
        return false;
    }
    mailbox_send(mailbox);
    return true;
}
