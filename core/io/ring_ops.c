#include "core/io/ring_ops.h"

#include <poll.h>

/* The kernel takes the bits of these; the library's parameters are int. */
#define FILE_ARGUMENT(file) ((int)(file))

static void tag_sqe(struct io_uring_sqe *sqe, uint64_t tag)
{
    io_uring_sqe_set_data64(sqe, tag);
    if (tag == RING_TAG_NONE) {
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    }
}

static void tag_file_sqe(struct io_uring_sqe *sqe, uint64_t tag)
{
    sqe->flags |= IOSQE_FIXED_FILE;
    tag_sqe(sqe, tag);
}

void ring_accept_direct(struct ring *ring, int listener_fd, uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    /* No SOCK_CLOEXEC: -EINVAL for a direct descriptor, which no exec inherits anyway. */
    io_uring_prep_multishot_accept_direct(sqe, listener_fd, NULL, NULL, 0);
    tag_sqe(sqe, tag);
}

void ring_accept(struct ring *ring, int listener_fd, uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_multishot_accept(sqe, listener_fd, NULL, NULL, SOCK_CLOEXEC);
    tag_sqe(sqe, tag);
}

int ring_put_file(struct ring *ring, int fd, uint32_t file)
{
    const int result = io_uring_register_files_update(&ring->uring_, file, &fd, 1);

    return result < 0 ? result : 0;
}

void ring_connect(struct ring *ring, uint32_t file, const struct sockaddr *address,
                  socklen_t address_bytes, uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_connect(sqe, FILE_ARGUMENT(file), address, address_bytes);
    tag_file_sqe(sqe, tag);
}

void ring_poll(struct ring *ring, uint32_t file, uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_poll_multishot(sqe, FILE_ARGUMENT(file), POLLIN);
    tag_file_sqe(sqe, tag);
}

void ring_poll_fd(struct ring *ring, int fd, uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_poll_multishot(sqe, fd, POLLIN);
    tag_sqe(sqe, tag);
}

void ring_recv(struct ring *ring, uint32_t file, uint16_t buffer_group, uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_recv(sqe, FILE_ARGUMENT(file), NULL, 0, MSG_DONTWAIT);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = buffer_group;
    tag_file_sqe(sqe, tag);
}

void ring_recv_wait(struct ring *ring, uint32_t file, uint16_t buffer_group, uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_recv(sqe, FILE_ARGUMENT(file), NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = buffer_group;
    tag_file_sqe(sqe, tag);
}

void ring_send(struct ring *ring, uint32_t file, const void *bytes, uint32_t byte_count,
               uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_send(sqe, FILE_ARGUMENT(file), bytes, byte_count, MSG_NOSIGNAL | MSG_WAITALL);
    tag_file_sqe(sqe, tag);
}

void ring_shutdown(struct ring *ring, uint32_t file, int how, uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_shutdown(sqe, FILE_ARGUMENT(file), how);
    tag_file_sqe(sqe, tag);
}

void ring_close_file(struct ring *ring, uint32_t file, uint64_t tag)
{
    ring_reserve(ring, 2);
    struct io_uring_sqe *cancel = ring_sqe(ring);

    io_uring_prep_cancel_fd(cancel, FILE_ARGUMENT(file),
                            IORING_ASYNC_CANCEL_FD_FIXED | IORING_ASYNC_CANCEL_ALL);
    /* A hard link: close, whatever cancelling found. */
    cancel->flags |= IOSQE_IO_HARDLINK;
    tag_sqe(cancel, RING_TAG_NONE);

    struct io_uring_sqe *closing = ring_sqe(ring);

    /* No IOSQE_FIXED_FILE here: close_direct fails with it. */
    io_uring_prep_close_direct(closing, file);
    tag_sqe(closing, tag);
}

void ring_cancel(struct ring *ring, uint64_t cancelled_tag, uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_cancel64(sqe, cancelled_tag, IORING_ASYNC_CANCEL_ALL);
    tag_sqe(sqe, tag);
}

void ring_send_message(struct ring *ring, int ring_fd, uint64_t target_tag, uint32_t result,
                       uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_msg_ring(sqe, ring_fd, result, target_tag, 0);
    tag_sqe(sqe, tag);
}

void ring_pass_file(struct ring *ring, int ring_fd, uint32_t file, uint64_t target_tag,
                    uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_msg_ring_fd_alloc(sqe, ring_fd, FILE_ARGUMENT(file), target_tag, 0);
    tag_sqe(sqe, tag);
}

bool ring_set_option(struct ring *ring, uint32_t file, int level, int name, const void *value,
                     uint32_t value_bytes, uint64_t tag)
{
    if (!ring->features.cmd_sock) {
        return false;
    }
    struct io_uring_sqe *sqe = ring_sqe(ring);

    /* The kernel only reads `value`; the library's parameter serves getsockopt too. */
    io_uring_prep_cmd_sock(sqe, SOCKET_URING_OP_SETSOCKOPT, FILE_ARGUMENT(file), level, name, NULL,
                           (int)value_bytes);
    sqe->optval = (uint64_t)(uintptr_t)value;
    tag_file_sqe(sqe, tag);
    return true;
}

void ring_write_durable(struct ring *ring, int fd, const void *bytes, uint32_t byte_count,
                        uint64_t offset, uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_write(sqe, fd, bytes, byte_count, offset);
    sqe->rw_flags = RWF_DSYNC;
    sqe->flags |= IOSQE_ASYNC;
    tag_sqe(sqe, tag);
}

void ring_write(struct ring *ring, int fd, const void *bytes, uint32_t byte_count, uint64_t offset,
                uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_write(sqe, fd, bytes, byte_count, offset);
    tag_sqe(sqe, tag);
}

void ring_read(struct ring *ring, int fd, void *bytes, uint32_t byte_count, uint64_t offset,
               uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_read(sqe, fd, bytes, byte_count, offset);
    tag_sqe(sqe, tag);
}

void ring_datasync(struct ring *ring, int fd, uint64_t tag)
{
    struct io_uring_sqe *sqe = ring_sqe(ring);

    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    tag_sqe(sqe, tag);
}
