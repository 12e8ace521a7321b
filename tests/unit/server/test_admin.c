#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/io/clock.h"
#include "core/server/admin.h"

struct site {
    struct admin *admin;
    struct sockaddr_in address;
    uint64_t now_ns; /* the tests' own clock */
    const char *not_ready;
    size_t metrics_bytes;
    bool metrics_fail;
};

static bool print_metrics(void *context, FILE *file)
{
    const struct site *site = context;

    for (size_t i = 0; i < site->metrics_bytes; i++) {
        (void)fputc('m', file);
    }
    return !site->metrics_fail;
}

static const char *not_ready(void *context)
{
    return ((const struct site *)context)->not_ready;
}

static void open_site(struct site *site)
{
    const struct admin_pages pages = { site, print_metrics, not_ready };
    socklen_t address_bytes = sizeof site->address;
    struct hf_error error;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memset(site, 0, sizeof *site);
    site->metrics_bytes = 10;
    site->now_ns = CLOCK_NS_PER_S;
    site->address.sin_family = AF_INET;
    site->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&site->address, sizeof site->address), 0);
    site->admin = admin_open(fd, &pages, &error);
    assert_non_null(site->admin);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&site->address, &address_bytes), 0);
}

static int dial(const struct site *site)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (const struct sockaddr *)&site->address, sizeof site->address), 0);
    return fd;
}

/* One round of the node's loop; false: nothing was to be done. */
static bool turn(struct site *site, int timeout_ms)
{
    struct pollfd polls[ADMIN_POLLS_MAX];
    const uint32_t count = admin_get_polls(site->admin, polls);
    const int ready = poll(polls, count, timeout_ms);

    admin_run(site->admin, polls, count, site->now_ns);
    return ready > 0;
}

/* Sends the request and turns until the answer ends. */
static size_t ask(struct site *site, const char *request, size_t request_bytes, char *answer,
                  size_t room)
{
    const int fd = dial(site);
    size_t length = 0;

    if (request_bytes > 0) {
        assert_int_equal(send(fd, request, request_bytes, MSG_NOSIGNAL), (ssize_t)request_bytes);
    }
    for (;;) {
        const ssize_t got = recv(fd, answer + length, room - 1 - length, MSG_DONTWAIT);

        if (got == 0) {
            break;
        }
        if (got > 0) {
            length += (size_t)got;
        } else {
            (void)turn(site, 10);
        }
    }
    answer[length] = '\0';
    (void)close(fd);
    while (turn(site, 0)) {
    }
    return length;
}

static void check_answer(const char *request, size_t request_bytes, const char *begins)
{
    struct site site;
    char answer[8192];

    open_site(&site);
    (void)ask(&site, request, request_bytes, answer, sizeof answer);
    if (strncmp(answer, begins, strlen(begins)) != 0) {
        fail_msg("%s: %s", request, answer);
    }
    admin_close(site.admin);
}

static void requests_are_answered_by_method_and_path(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        const char *begins;
    } rows[] = {
        { "GET /live HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n" },
        { "GET /live HTTP/1.0\n\n", "HTTP/1.1 200 OK\r\n" },
        { "GET /live?verbose=1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n" },
        { "GET /ready HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n" },
        { "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 " },
        { "GET /live/ HTTP/1.1\r\n\r\n", "HTTP/1.1 404 " },
        { "GET /metricsx HTTP/1.1\r\n\r\n", "HTTP/1.1 404 " },
        { "POST /live HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
          "HTTP/1.1 405 Method Not Allowed\r\n" },
        { "GETS /live HTTP/1.1\r\n\r\n", "HTTP/1.1 405 " },
        { "GET /live HTTP/2.0\r\n\r\n", "HTTP/1.1 505 " },
        { "GET /live\r\n\r\n", "HTTP/1.1 400 " },
        { "GET live HTTP/1.1\r\n\r\n", "HTTP/1.1 400 " },
        { "\r\n\r\n", "HTTP/1.1 400 " },
        { "   \r\n\r\n", "HTTP/1.1 400 " },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_answer(rows[i].request, strlen(rows[i].request), rows[i].begins);
    }
    check_answer("GET /li\0ve HTTP/1.1\r\n\r\n", 23, "HTTP/1.1 400 ");
}

static void head_gets_the_length_without_the_page(void **state)
{
    (void)state;
    struct site site;
    char answer[8192];

    open_site(&site);
    (void)ask(&site, "HEAD /metrics HTTP/1.1\r\n\r\n", 26, answer, sizeof answer);
    assert_non_null(strstr(answer, "\r\nContent-Length: 10\r\n"));
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    (void)ask(&site, "GET /metrics HTTP/1.1\r\n\r\n", 25, answer, sizeof answer);
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\nmmmmmmmmmm");
    assert_non_null(
        strstr(answer, "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert_non_null(strstr(answer, "\r\nConnection: close\r\n"));
    admin_close(site.admin);
}

static void server_that_is_not_ready_says_why(void **state)
{
    (void)state;
    struct site site;
    char answer[8192];

    open_site(&site);
    site.not_ready = "draining";
    (void)ask(&site, "GET /ready HTTP/1.1\r\n\r\n", 23, answer, sizeof answer);
    assert_int_equal(strncmp(answer, "HTTP/1.1 503 ", 13), 0);
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\ndraining\n");
    site.metrics_fail = true;
    (void)ask(&site, "GET /metrics HTTP/1.1\r\n\r\n", 25, answer, sizeof answer);
    assert_int_equal(strncmp(answer, "HTTP/1.1 500 ", 13), 0);
    admin_close(site.admin);
}

static void header_beyond_the_bound_is_refused(void **state)
{
    (void)state;
    static char request[5000];
    struct site site;
    char answer[8192];

    static const char begin[] = "GET /live HTTP/1.1\r\nX: ";

    memset(request, 'a', sizeof request);
    memcpy(request, begin, sizeof begin - 1); /* all of it is one line */
    open_site(&site);
    (void)ask(&site, request, sizeof request, answer, sizeof answer);
    assert_int_equal(strncmp(answer, "HTTP/1.1 431 ", 13), 0);
    admin_close(site.admin);
}

static void page_larger_than_the_socket_s_buffer_comes_whole(void **state)
{
    (void)state;
    static char answer[9 << 20];
    struct site site;

    open_site(&site);
    site.metrics_bytes = 8 << 20;
    const size_t got = ask(&site, "GET /metrics HTTP/1.1\r\n\r\n", 25, answer, sizeof answer);
    const char *body = strstr(answer, "\r\n\r\n") + 4;
    assert_int_equal(got - (size_t)(body - answer), 8 << 20);
    admin_close(site.admin);
}

static bool has_ended(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void silent_clients_are_ended_by_time_and_never_more_than_the_bound(void **state)
{
    (void)state;
    enum { CLIENTS = ADMIN_CONNECTIONS_MAX + 2 };
    struct site site;
    int clients[CLIENTS];
    struct pollfd polls[ADMIN_POLLS_MAX];

    open_site(&site);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = dial(&site);
        while (turn(&site, 20)) {
        }
    }
    /* The listener isn't among what is waited for any more. */
    assert_int_equal(admin_get_polls(site.admin, polls), ADMIN_CONNECTIONS_MAX);
    site.now_ns += 4 * CLOCK_NS_PER_S;
    (void)turn(&site, 0);
    assert_false(has_ended(clients[0]));
    site.now_ns += 1 * CLOCK_NS_PER_S;
    (void)turn(&site, 0);
    for (int i = 0; i < ADMIN_CONNECTIONS_MAX; i++) {
        assert_true(has_ended(clients[i]));
    }
    while (turn(&site, 20)) { /* the two that waited outside */
    }
    assert_int_equal(admin_get_polls(site.admin, polls), 3);
    for (int i = 0; i < CLIENTS; i++) {
        (void)close(clients[i]);
    }
    admin_close(site.admin);
}

static void request_in_single_bytes_is_put_together(void **state)
{
    (void)state;
    static const char request[] = "GET /live HTTP/1.1\r\n\r\n";
    struct site site;
    char answer[1024];

    open_site(&site);
    const int fd = dial(&site);
    for (size_t i = 0; i < sizeof request - 1; i++) {
        assert_int_equal(send(fd, request + i, 1, MSG_NOSIGNAL), 1);
        while (turn(&site, i == 0 ? 100 : 1)) {
            if (i == 0) {
                break;
            }
        }
    }
    while (recv(fd, answer, sizeof answer, MSG_PEEK | MSG_DONTWAIT) <= 0) {
        (void)turn(&site, 10);
    }
    const ssize_t got = recv(fd, answer, sizeof answer, 0);
    assert_true(got > 0 && strncmp(answer, "HTTP/1.1 200 ", 13) == 0);
    (void)close(fd);
    admin_close(site.admin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_answered_by_method_and_path),
        cmocka_unit_test(head_gets_the_length_without_the_page),
        cmocka_unit_test(server_that_is_not_ready_says_why),
        cmocka_unit_test(header_beyond_the_bound_is_refused),
        cmocka_unit_test(page_larger_than_the_socket_s_buffer_comes_whole),
        cmocka_unit_test(silent_clients_are_ended_by_time_and_never_more_than_the_bound),
        cmocka_unit_test(request_in_single_bytes_is_put_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
