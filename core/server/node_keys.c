#include "core/server/node_internal.h"

#include "core/base/check.h"

/* Ticket keys are for an hour each, and known an hour before: twice an hour is in time. */
#define REFRESH_NS (1800 * CLOCK_NS_PER_S)

void node_hand_out(struct node *node, struct credentials *next)
{
    const struct mail mail = { .kind = MAIL_RELOAD, .bytes = next };

    HF_ASSERT(node->old == NULL);
    node->old = node->present;
    node->present = next;
    atomic_store_explicit(&next->takers, 2 * node->core_count, memory_order_relaxed);
    for (uint32_t i = 0; i < node->core_count; i++) {
        /* One hand-out at a time, a drain and a stop: they always fit. */
        const bool given = post_give(&node->post.cores[i].node_to_reactor, &mail) &&
                           post_give(&node->post.cores[i].node_to_door, &mail);
        HF_ASSERT(given);
    }
}

static struct credentials *read_anew(struct node *node, struct hf_error *error)
{
    struct credentials *next = credentials_open(node->config, error);

    if (next == NULL) {
        return NULL;
    }
    next->certificate_version = node->present->certificate_version + 1;
    if (!credentials_load_rings(next, node->config, clock_unix_ms(), error)) {
        credentials_close(next);
        return NULL;
    }
    return next;
}

static void reload(struct node *node)
{
    struct hf_error error;
    struct credentials *next = read_anew(node, &error);

    node->reload_wanted = false;
    if (next == NULL) {
        log_event(node->log, LOG_ERROR, "reload_failed", "reason=\"%s\" note=\"the old keys stay\"",
                  error.text);
        return;
    }
    node_hand_out(node, next);
    log_event(node->log, LOG_INFO, "reloaded", "login_keys=%zu ticket_keys=%u resume_keys=%zu",
              next->login_keys->count, next->tickets.key_count, next->resume.count);
}

static void refresh(struct node *node)
{
    struct hf_error error;
    struct credentials *next =
        credentials_refresh(node->present, node->config, clock_unix_ms(), &error);

    node->refresh_at_ns = clock_now_ns() + REFRESH_NS;
    if (next == NULL) {
        log_event(node->log, LOG_ERROR, "rotation_failed",
                  "reason=\"%s\" note=\"tried again later\"", error.text);
        return;
    }
    node_hand_out(node, next);
    log_event(node->log, LOG_DEBUG, "rotated", "ticket_keys=%u resume_keys=%zu",
              next->tickets.key_count, next->resume.count);
}

void node_run_keys(struct node *node)
{
    if (node->old != NULL) {
        if (!credentials_are_taken(node->present)) {
            return; /* one hand-out after the other */
        }
        credentials_close_old(node->old, node->present);
        node->old = NULL;
    }
    if (node->refresh_at_ns == 0) {
        node->refresh_at_ns = clock_now_ns() + REFRESH_NS;
    }
    if (node->reload_wanted) {
        reload(node);
    } else if (clock_now_ns() >= node->refresh_at_ns) {
        refresh(node);
    }
}
