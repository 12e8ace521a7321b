/*
 * ring_ops: the operations that Holdfast asks of a ring, each as one SQE (ring_close_file: two).
 *
 * Thread   The ring's owner.
 * Words    `file` is an index in the ring's file table (a direct descriptor), `fd` a plain one.
 * Memory   What an operation points at stays untouched by the caller until its completion.
 * Tags     RING_TAG_NONE: no completion on success, and one on failure is dropped.
 * Errors   In the completion, -errno. Nothing fails here.
 * Facts    Measured on Linux 6.18 where not said otherwise.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/io/ring.h"

/*
 * Multishot: each client's direct descriptor comes as a result. -ENFILE: the table is full, that
 * client is already lost (it gets FIN), the rest wait in the backlog: ring_cancel it *before* the
 * table is full. Options are inherited from the listener, O_NONBLOCK isn't.
 */
void ring_accept_direct(struct ring *ring, int listener_fd, uint64_t tag);

/* Multishot: each client's plain descriptor (close-on-exec). */
void ring_accept(struct ring *ring, int listener_fd, uint64_t tag);

/*
 * Puts a plain descriptor into the file table, where it then lives on though fd is closed: at once,
 * a system call. Slots chosen so and slots that the kernel allocates don't mix in one table.
 * Returns 0 or -errno.
 */
__attribute__((warn_unused_result)) int ring_put_file(struct ring *ring, int fd, uint32_t file);

/* `address` needs to live until the next ring_run or ring_wait only. */
void ring_connect(struct ring *ring, uint32_t file, const struct sockaddr *address,
                  socklen_t address_bytes, uint64_t tag);

/*
 * Multishot poll for input: how an idle connection waits (4,221 B of kernel memory; 4,827 with an
 * armed receive). Edge triggered: after an event, receive until ring_recv_again says no. It stays
 * armed after FIN and RST.
 */
void ring_poll(struct ring *ring, uint32_t file, uint64_t tag);

/* The same for a plain descriptor, such as a bell's. */
void ring_poll_fd(struct ring *ring, int fd, uint64_t tag);

/*
 * One receive into a buffer of that group, without waiting. Result: bytes, 0 at the peer's end,
 * -EAGAIN: nothing there, -ENOBUFS: give buffers back, then try again. At most one in flight a
 * connection. A poll event seen while one is in flight needs no second: it runs at submission, and
 * what comes later completes later.
 */
void ring_recv(struct ring *ring, uint32_t file, uint16_t buffer_group, uint64_t tag);

/*
 * The same, but it stays armed until bytes or the end come: for connections that are few, or about
 * to speak (600 B of kernel memory more than a poll, one completion less). A buffer is taken only
 * when bytes are there.
 */
void ring_recv_wait(struct ring *ring, uint32_t file, uint16_t buffer_group, uint64_t tag);

/* Whether bytes are left, for which no further poll event will come. */
static inline bool ring_recv_again(const struct ring_event *event)
{
    return event->result > 0 && (event->flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
}

/*
 * Sends all, with patience; still, a result below byte_count is possible: go on from there. One in
 * flight a connection: of several, one that must wait is overtaken (40 of 40 streams scrambled).
 */
void ring_send(struct ring *ring, uint32_t file, const void *bytes, uint32_t byte_count,
               uint64_t tag);

/* `how`: SHUT_WR and kin. Runs in a kernel worker thread. */
void ring_shutdown(struct ring *ring, uint32_t file, int how, uint64_t tag);

/*
 * Cancels all that is in flight on `file`, then closes it. The cancelled operations complete first
 * (-ECANCELED), then this. Without cancelling, an armed poll keeps the socket open: the peer gets
 * no FIN, and the slot's next tenant gets its events. Unread bytes make the kernel send RST, which
 * may cost the peer our last frame: ring_shutdown, receive until 0, then close.
 */
void ring_close_file(struct ring *ring, uint32_t file, uint64_t tag);

/* Cancels the operations with that tag. Result: how many were found. */
void ring_cancel(struct ring *ring, uint64_t cancelled_tag, uint64_t tag);

/*
 * To the ring with descriptor ring_fd: a completion with `target_tag` and `result` there. Messages
 * keep their order. A full CQ there isn't seen here (the kernel queues without bound): the sender
 * must hold a credit, as with a mailbox. Result here: 0, or -EBADFD: not enabled yet.
 */
void ring_send_message(struct ring *ring, int ring_fd, uint64_t target_tag, uint32_t result,
                       uint64_t tag);

/*
 * A copy of the direct descriptor `file` to that ring, into a slot that its table chooses: a
 * completion with `target_tag` whose result is the slot. It may overtake messages and be overtaken:
 * act when both are there. Cancel our own poll first, and close our own copy after: by
 * ring_close_file, once this completed. Result here: the slot there, or -ENFILE: none free, or
 * -EBADFD: not enabled yet. Whoever passes descriptors holds a credit for each, so that the CQ
 * there has room: else -EOVERFLOW, and a slot there that nobody knows of.
 */
void ring_pass_file(struct ring *ring, int ring_fd, uint32_t file, uint64_t target_tag,
                    uint64_t tag);

/*
 * setsockopt on a direct descriptor. False, and nothing happens, without the feature cmd_sock:
 * options that must be there are set on the listener. `value` lives until completion.
 */
bool ring_set_option(struct ring *ring, uint32_t file, int level, int name, const void *value,
                     uint32_t value_bytes, uint64_t tag);

/*
 * A journal write: durable on completion, when the result is byte_count (a shorter one is a
 * failure). For O_DIRECT into space written before: the thread is held for 3 us, 24 without
 * IOSQE_ASYNC; p50 158 us for 36 KB.
 */
void ring_write_durable(struct ring *ring, int fd, const void *bytes, uint32_t byte_count,
                        uint64_t offset, uint64_t tag);
void ring_write(struct ring *ring, int fd, const void *bytes, uint32_t byte_count, uint64_t offset,
                uint64_t tag);
void ring_read(struct ring *ring, int fd, void *bytes, uint32_t byte_count, uint64_t offset,
               uint64_t tag);
/* fdatasync. After a failure, trust nothing of that file: stop. */
void ring_datasync(struct ring *ring, int fd, uint64_t tag);
