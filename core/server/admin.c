#include "core/server/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/io/clock.h"

#define REQUEST_BYTES_MAX 4096
#define DEADLINE_NS       (5 * CLOCK_NS_PER_S)
#define ACCEPT_REST_NS    (100 * CLOCK_NS_PER_MS)

enum admin_state {
    ADMIN_FREE,
    ADMIN_READING,
    ADMIN_WRITING,
    ADMIN_LINGERING, /* all is sent: reads on until the peer's end, so that no RST eats it */
};

struct admin_conn {
    enum admin_state state;
    int fd;
    uint64_t deadline_ns;
    char in[REQUEST_BYTES_MAX];
    size_t in_bytes;
    char *out; /* of open_memstream */
    size_t out_bytes;
    size_t out_sent;
};

struct admin {
    int fd;
    uint64_t accept_at_ns; /* after a failure, not before then; 0: at any time */
    struct admin_pages pages;
    struct admin_conn conns[ADMIN_CONNECTIONS_MAX];
};

struct admin *admin_open(int fd, const struct admin_pages *pages, struct hf_error *error)
{
    struct admin *admin = calloc(1, sizeof *admin);

    if (admin == NULL) {
        hf_error_set(error, EX_OSERR, 0, "admin: no memory");
        (void)close(fd);
        return NULL;
    }
    admin->fd = fd;
    admin->pages = *pages;
    /* Not blocking: a client may have gone between poll and accept. */
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || listen(fd, ADMIN_CONNECTIONS_MAX) != 0) {
        hf_error_set(error, EX_UNAVAILABLE, errno, "admin_listen");
        admin_close(admin);
        return NULL;
    }
    return admin;
}

static void end(struct admin_conn *conn)
{
    (void)close(conn->fd);
    free(conn->out);
    memset(conn, 0, sizeof *conn);
}

void admin_close(struct admin *admin)
{
    if (admin == NULL) {
        return;
    }
    for (uint32_t i = 0; i < ADMIN_CONNECTIONS_MAX; i++) {
        if (admin->conns[i].state != ADMIN_FREE) {
            end(&admin->conns[i]);
        }
    }
    (void)close(admin->fd);
    free(admin);
}

/* ---- answers */

static void write_page(struct admin_conn *conn)
{
    while (conn->out_sent < conn->out_bytes) {
        const ssize_t sent = send(conn->fd, conn->out + conn->out_sent,
                                  conn->out_bytes - conn->out_sent, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0 && errno == EAGAIN) {
            return;
        }
        if (sent <= 0) {
            end(conn);
            return;
        }
        conn->out_sent += (size_t)sent;
    }
    (void)shutdown(conn->fd, SHUT_WR);
    conn->state = ADMIN_LINGERING;
}

/* `body` of body_bytes; HEAD gets its length only. */
static void answer(struct admin_conn *conn, const char *status, const char *type, const char *body,
                   size_t body_bytes, bool with_body)
{
    FILE *file = open_memstream(&conn->out, &conn->out_bytes);

    if (file == NULL) {
        end(conn);
        return;
    }
    (void)fprintf(file,
                  "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                  "Cache-Control: no-store\r\nConnection: close\r\n%s\r\n",
                  status, type, body_bytes,
                  strncmp(status, "405", 3) == 0 ? "Allow: GET, HEAD\r\n" : "");
    if (with_body) {
        (void)fwrite(body, 1, body_bytes, file);
    }
    if (fclose(file) != 0) {
        end(conn);
        return;
    }
    conn->state = ADMIN_WRITING;
    write_page(conn);
}

static void answer_text(struct admin_conn *conn, const char *status, const char *text,
                        bool with_body)
{
    char line[256];
    const int length = snprintf(line, sizeof line, "%s\n", text);

    HF_ASSERT(length > 0 && (size_t)length < sizeof line);
    answer(conn, status, "text/plain; charset=utf-8", line, (size_t)length, with_body);
}

static void answer_metrics(struct admin *admin, struct admin_conn *conn, bool with_body)
{
    char *page = NULL;
    size_t page_bytes = 0;
    FILE *file = open_memstream(&page, &page_bytes);
    bool good = file != NULL && admin->pages.metrics(admin->pages.context, file);

    if (file != NULL && fclose(file) != 0) {
        good = false;
    }
    if (good) {
        answer(conn, "200 OK", "text/plain; version=0.0.4; charset=utf-8", page, page_bytes,
               with_body);
    } else {
        answer_text(conn, "500 Internal Server Error", "no memory", with_body);
    }
    free(page);
}

/* ---- requests */

static void route(struct admin *admin, struct admin_conn *conn, const char *path, size_t path_bytes,
                  bool with_body)
{
    if (path_bytes == 8 && memcmp(path, "/metrics", 8) == 0) {
        answer_metrics(admin, conn, with_body);
    } else if (path_bytes == 6 && memcmp(path, "/ready", 6) == 0) {
        const char *why = admin->pages.not_ready(admin->pages.context);

        answer_text(conn, why == NULL ? "200 OK" : "503 Service Unavailable",
                    why == NULL ? "ready" : why, with_body);
    } else if (path_bytes == 5 && memcmp(path, "/live", 5) == 0) {
        answer_text(conn, "200 OK", "live", with_body);
    } else {
        answer_text(conn, "404 Not Found", "there are /metrics, /ready and /live", with_body);
    }
}

/* The first line is "METHOD PATH HTTP/1.x"; header fields don't matter to us. */
static void on_request(struct admin *admin, struct admin_conn *conn)
{
    const char *line = conn->in;
    const size_t line_bytes = strcspn(line, "\r\n");
    const char *method_end = memchr(line, ' ', line_bytes);
    const char *path = method_end == NULL ? NULL : method_end + 1;
    const char *path_end =
        path == NULL ? NULL : memchr(path, ' ', line_bytes - (size_t)(path - line));

    if (path_end == NULL || *path != '/') {
        answer_text(conn, "400 Bad Request", "expected METHOD /PATH HTTP/1.1", true);
        return;
    }

    const char *version = path_end + 1;
    const size_t version_bytes = line_bytes - (size_t)(version - line);

    if (version_bytes != 8 || memcmp(version, "HTTP/1.", 7) != 0) {
        answer_text(conn, "505 HTTP Version Not Supported", "HTTP/1.0 or 1.1", true);
        return;
    }

    const bool is_head = method_end - line == 4 && memcmp(line, "HEAD", 4) == 0;

    if (!is_head && !(method_end - line == 3 && memcmp(line, "GET", 3) == 0)) {
        answer_text(conn, "405 Method Not Allowed", "GET or HEAD", true);
        return;
    }

    const char *query = memchr(path, '?', (size_t)(path_end - path));

    route(admin, conn, path, (size_t)((query == NULL ? path_end : query) - path), !is_head);
}

static bool has_whole_request(const struct admin_conn *conn)
{
    return memmem(conn->in, conn->in_bytes, "\r\n\r\n", 4) != NULL ||
           memmem(conn->in, conn->in_bytes, "\n\n", 2) != NULL;
}

static void read_request(struct admin *admin, struct admin_conn *conn)
{
    /* One byte is left for the end of the text, which strcspn relies on. */
    const size_t room = sizeof conn->in - 1 - conn->in_bytes;
    const ssize_t got = recv(conn->fd, conn->in + conn->in_bytes, room, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        end(conn);
        return;
    }
    conn->in_bytes += (size_t)got;
    conn->in[conn->in_bytes] = '\0';
    if (memchr(conn->in, '\0', conn->in_bytes) != NULL) {
        answer_text(conn, "400 Bad Request", "a zero byte", true);
    } else if (has_whole_request(conn)) {
        on_request(admin, conn);
    } else if (conn->in_bytes == sizeof conn->in - 1) {
        answer_text(conn, "431 Request Header Fields Too Large", "4,095 bytes at most", true);
    }
}

static void drain(struct admin_conn *conn)
{
    const ssize_t got = recv(conn->fd, conn->in, sizeof conn->in, MSG_DONTWAIT);

    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        end(conn);
    }
}

/* ---- polling */

static struct admin_conn *find_free(struct admin *admin)
{
    for (uint32_t i = 0; i < ADMIN_CONNECTIONS_MAX; i++) {
        if (admin->conns[i].state == ADMIN_FREE) {
            return &admin->conns[i];
        }
    }
    return NULL;
}

uint32_t admin_get_polls(const struct admin *admin, struct pollfd polls[ADMIN_POLLS_MAX])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < ADMIN_CONNECTIONS_MAX; i++) {
        const struct admin_conn *conn = &admin->conns[i];

        if (conn->state != ADMIN_FREE) {
            polls[count++] = (struct pollfd){
                .fd = conn->fd,
                .events = conn->state == ADMIN_WRITING ? POLLOUT : POLLIN,
            };
        }
    }
    if (count < ADMIN_CONNECTIONS_MAX && admin->accept_at_ns == 0) {
        polls[count++] = (struct pollfd){ .fd = admin->fd, .events = POLLIN };
    }
    return count;
}

static void accept_one(struct admin *admin, uint64_t now_ns)
{
    struct admin_conn *conn = find_free(admin);
    const int fd = conn == NULL ? -1 : accept4(admin->fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0) {
        conn->state = ADMIN_READING;
        conn->fd = fd;
        conn->deadline_ns = now_ns + DEADLINE_NS;
    } else if (conn != NULL && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
        /* No descriptor, no memory: the client stays in the backlog, and poll would say so at once. */
        admin->accept_at_ns = now_ns + ACCEPT_REST_NS;
    }
}

static void run_one(struct admin *admin, struct admin_conn *conn)
{
    switch (conn->state) {
    case ADMIN_READING:
        read_request(admin, conn);
        return;
    case ADMIN_WRITING:
        write_page(conn);
        return;
    case ADMIN_LINGERING:
        drain(conn);
        return;
    case ADMIN_FREE:
        return;
    }
}

void admin_run(struct admin *admin, const struct pollfd *polls, uint32_t poll_count,
               uint64_t now_ns)
{
    bool accepting = false;

    for (uint32_t i = 0; i < poll_count; i++) {
        if (polls[i].revents == 0) {
            continue;
        }
        if (polls[i].fd == admin->fd) {
            accepting = true;
            continue;
        }
        for (uint32_t c = 0; c < ADMIN_CONNECTIONS_MAX; c++) {
            if (admin->conns[c].state != ADMIN_FREE && admin->conns[c].fd == polls[i].fd) {
                run_one(admin, &admin->conns[c]);
                break;
            }
        }
    }
    for (uint32_t c = 0; c < ADMIN_CONNECTIONS_MAX; c++) {
        if (admin->conns[c].state != ADMIN_FREE && now_ns >= admin->conns[c].deadline_ns) {
            end(&admin->conns[c]);
        }
    }
    if (now_ns >= admin->accept_at_ns) {
        admin->accept_at_ns = 0;
    }
    if (accepting) {
        accept_one(admin, now_ns);
    }
}
