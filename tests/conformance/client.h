/*
 * client: a TLS client that does what it is told on its standard input, a command a line, and says
 * what came of it, an answer a line. The same commands for every library: client.c reads and
 * answers them, client_LIBRARY.c does them, and client.go is a third that knows them.
 *
 *   connect HOST PORT KEY=VALUE...  connected resumed=0 hellos=1 alpn=... certificate=SHA-256
 *                                   refused alert=N | refused TEXT
 *     ca=FILE alpn=A,B sni=NAME     the authority; what is offered; nothing if it is left out
 *     tls12=1 suite=NAME groups=hrr that version alone; that suite alone; a group first that the
 *                                   server lacks
 *     resume=1 modes=ke             with the last session; by psk_ke alone
 *     garble=N                      with byte N of its ticket changed, from the end if negative
 *     ahead=S                       with a clock so many seconds ahead; for the others than Go's,
 *                                   moved_clock.c does it
 *   write HEX                       ok: as one record, if it fits
 *   pad N                           ok: what is written from now on is padded by or to N bytes
 *   read                            data HEX | closed (close_notify) | end (without) | alert N |
 *                                   failed TEXT
 *   update 0|1                      ok: a KeyUpdate, which asks for one or doesn't
 *   close | fin | drop              ok: close_notify | end of the stream | close the socket
 *
 * A command or key that the library can't do is answered by "unsupported WHAT".
 *
 * Owner    One connection at a time, and the last session, are the program's.
 * Thread   One. Reads and writes block, for CLIENT_TIMEOUT_S at most.
 * Errors   Of the peer and the library: answers. Of whoever drives it: the program exits with 1.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CLIENT_TIMEOUT_S = 60,
    CLIENT_TEXT_BYTES = 200,
    CLIENT_BYTES_MAX = 1 << 15,
    CLIENT_NO_ALERT = -1,
};

struct client_options {
    const char *ca;
    const char *alpn; /* separated by commas; NULL: none */
    const char *sni;  /* NULL: none */
    const char *suite;
    bool tls12;
    bool retry; /* groups=hrr */
    bool resume;
    bool psk_ke;
    bool garbled;
    long garble;
};

struct client_connected {
    bool resumed;
    int hellos; /* ClientHellos that were sent: two after a HelloRetryRequest */
    char alpn[CLIENT_TEXT_BYTES];
    char certificate[2 * 32 + 1];
};

enum client_result {
    CLIENT_OK,
    CLIENT_CLOSED,
    CLIENT_END,
    CLIENT_ALERT,
    CLIENT_FAILED,
};

struct client_failure {
    int alert; /* that came */
    char text[CLIENT_TEXT_BYTES];
};

/* The last result of the library's, for CLIENT_ALERT and CLIENT_FAILED. */
extern struct client_failure client_failure;

/* The name of a certificate that every test's server has, and that is checked. */
#define CLIENT_VERIFIED_NAME "localhost"

/* ---- what a library's file defines */

/* "suite", "modes", "groups", "update", "pad": whether it can be had. */
bool library_can(const char *what);

/* Shakes hands over the socket. One connection at a time. */
enum client_result library_connect(int socket, const struct client_options *options,
                                   struct client_connected *connected);
enum client_result library_write(const uint8_t *bytes, size_t byte_count);
enum client_result library_read(uint8_t *bytes, size_t capacity, size_t *byte_count);
enum client_result library_update(bool ask_peer);
enum client_result library_close(void);
void library_pad(size_t byte_count);

/* Keeps the session if one has come, and frees the connection. The socket is the caller's. */
void library_drop(void);

/* ---- what they have of client.c */

/* Changes the byte of the ticket that lies somewhere in a library's own form of a session. */
void client_garble(uint8_t *session, size_t session_bytes, const uint8_t *ticket,
                   size_t ticket_bytes, long at);
void client_hex(const uint8_t *bytes, size_t byte_count, char *out);

/* Ends the program: the test itself is wrong. */
void client_give_up(const char *why) __attribute__((noreturn));
