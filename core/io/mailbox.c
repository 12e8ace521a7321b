/*
 * Why no wake-up is lost. Four operations are sequentially consistent, so all threads agree on one
 * order of them:
 *     consumer   C1 bell_prepare: sleeping_ = 1      C2 mailbox_empty: reads tail_
 *     producer   P1 mailbox_send: tail_ = new        P2 mailbox_send: reads sleeping_
 * If C2 doesn't see the new tail, C2 comes before P1, so C1 before P2: the producer sees a sleeper
 * and rings, and the eventfd's poll completes though it is armed only later, for the count stays.
 * If P2 doesn't see the sleeper, P2 comes before C1, so P1 before C2: the consumer sees the message
 * and doesn't sleep. With release and acquire alone both could read old values, and a message would
 * lie until the consumer's next time-out. (Operations, not fences: ThreadSanitizer knows no
 * fences.)
 */
#include "core/io/mailbox.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/base/error.h"

bool bell_open(struct bell *bell, struct hf_error *error)
{
    atomic_init(&bell->sleeping_, 0);
    bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell->fd < 0) {
        hf_error_set(error, EX_OSERR, errno, "eventfd");
        return false;
    }
    return true;
}

void bell_close(struct bell *bell)
{
    if (bell->fd >= 0) {
        (void)close(bell->fd);
    }
    bell->fd = -1;
}

void bell_prepare(struct bell *bell)
{
    atomic_store_explicit(&bell->sleeping_, 1, memory_order_seq_cst); /* C1; partner: P2 */
}

void bell_cancel(struct bell *bell)
{
    /* Relaxed: a sender that still sees 1 rings once for nothing. */
    atomic_store_explicit(&bell->sleeping_, 0, memory_order_relaxed);
}

void bell_ring(struct bell *bell)
{
    const uint64_t one = 1;

    /* Fails only when the count would pass 2^64 - 2, by when the poll has long been triggered. */
    ssize_t written = write(bell->fd, &one, sizeof one);
    HF_ASSERT(written == (ssize_t)sizeof one || errno == EAGAIN);
}

bool mailbox_open(struct mailbox *mailbox, size_t message_bytes, uint32_t capacity,
                  struct bell *bell, struct hf_error *error)
{
    HF_ASSERT(message_bytes > 0 && message_bytes % 8 == 0 && message_bytes <= UINT32_MAX);
    HF_ASSERT(capacity > 0 && (capacity & (capacity - 1)) == 0 && capacity <= UINT32_C(1) << 30);

    memset(mailbox, 0, sizeof *mailbox);
    void *cells = mmap(NULL, message_bytes * capacity, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (cells == MAP_FAILED) {
        hf_error_set(error, EX_OSERR, errno, "memory for a mailbox of %u messages", capacity);
        return false;
    }
    mailbox->cells_ = cells;
    mailbox->bell_ = bell;
    mailbox->capacity = capacity;
    mailbox->message_bytes = (uint32_t)message_bytes;
    return true;
}

void mailbox_close(struct mailbox *mailbox)
{
    if (mailbox->cells_ != NULL) {
        (void)munmap(mailbox->cells_, (size_t)mailbox->message_bytes * mailbox->capacity);
    }
    memset(mailbox, 0, sizeof *mailbox);
}

static uint8_t *mailbox_cell(const struct mailbox *mailbox, uint32_t number)
{
    return mailbox->cells_ + (size_t)(number & (mailbox->capacity - 1)) * mailbox->message_bytes;
}

uint32_t mailbox_room(struct mailbox *mailbox)
{
    /* Acquire: the consumer has read the cells before it. Partner: mailbox_take. */
    mailbox->head_seen_ = atomic_load_explicit(&mailbox->head_, memory_order_acquire);
    return mailbox->capacity - (mailbox->given_ - mailbox->head_seen_);
}

bool mailbox_give(struct mailbox *mailbox, const void *message)
{
    if (mailbox->given_ - mailbox->head_seen_ == mailbox->capacity && mailbox_room(mailbox) == 0) {
        mailbox->refused++;
        return false;
    }
    memcpy(mailbox_cell(mailbox, mailbox->given_), message, mailbox->message_bytes);
    mailbox->given_++;
    return true;
}

void mailbox_send(struct mailbox *mailbox)
{
    struct bell *bell = mailbox->bell_;

    /* Relaxed: our own last store. */
    if (atomic_load_explicit(&mailbox->tail_, memory_order_relaxed) == mailbox->given_) {
        return;
    }
    /* P1. Also releases the cells; partners: C2 and mailbox_take. */
    atomic_store_explicit(&mailbox->tail_, mailbox->given_, memory_order_seq_cst);

    /* P2; partner: C1. The exchange lets one of several senders ring, not each. */
    if (bell != NULL && atomic_load_explicit(&bell->sleeping_, memory_order_seq_cst) != 0 &&
        atomic_exchange_explicit(&bell->sleeping_, 0, memory_order_relaxed) != 0) {
        bell_ring(bell);
    }
}

const void *mailbox_take(struct mailbox *mailbox)
{
    /* The message looked at until now is done with. Release: we have read its cell. */
    atomic_store_explicit(&mailbox->head_, mailbox->taken_, memory_order_release);

    if (mailbox->taken_ == mailbox->tail_seen_) {
        /* Acquire: the producer has written the cells before it. Partner: P1. */
        mailbox->tail_seen_ = atomic_load_explicit(&mailbox->tail_, memory_order_acquire);
        if (mailbox->taken_ == mailbox->tail_seen_) {
            return NULL;
        }
    }
    return mailbox_cell(mailbox, mailbox->taken_++);
}

void *mailbox_look(struct mailbox *mailbox, uint32_t nth)
{
    if (mailbox->tail_seen_ - mailbox->taken_ <= nth) {
        /* Acquire: as in mailbox_take. */
        mailbox->tail_seen_ = atomic_load_explicit(&mailbox->tail_, memory_order_acquire);
        if (mailbox->tail_seen_ - mailbox->taken_ <= nth) {
            return NULL;
        }
    }
    return mailbox_cell(mailbox, mailbox->taken_ + nth);
}

bool mailbox_empty(struct mailbox *mailbox)
{
    mailbox->tail_seen_ = atomic_load_explicit(&mailbox->tail_, memory_order_seq_cst); /* C2 */
    return mailbox->taken_ == mailbox->tail_seen_;
}
