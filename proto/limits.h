/*
 * limits: every limit of the protocol, in one place. docs/protocol.md states the same numbers, and
 * a test holds the two together.
 *
 * Units    Named in each macro: bytes, or a count of what it bounds.
 * Use      Where HELLO_OK announces a limit, a client obeys what it was told; these are what this
 *          server announces and the most that either end ever has to hold.
 */
#pragma once

#define PROTOCOL_VERSION 1
#define PROTOCOL_ALPN    "holdfast/1"

/* A whole frame, header included. One frame fits into one TLS record (16,384 B), with room. */
#define FRAME_HEADER_BYTES      4
#define FRAME_BYTES_MAX         16000
#define FRAME_PAYLOAD_BYTES_MAX (FRAME_BYTES_MAX - FRAME_HEADER_BYTES)

#define BODY_BYTES_MAX 15000
#define NONCE_BYTES    16
#define KIND_MAX       127 /* of the application; 128 and up are reserved */

#define TOKEN_BYTES_MAX        4096 /* a log-in token: a JWT */
#define RESUME_TOKEN_BYTES_MAX 64
#define CLIENT_NAME_BYTES_MAX  64
#define ERROR_TEXT_BYTES_MAX   200
#define ADDRESS_BYTES_MAX      255 /* host:port of another server */

#define DEVICES_PER_USER_MAX     16
#define SENDS_OUTSTANDING_MAX    32 /* SENDs of a device not yet answered */
#define OUTCOMES_KEPT            32 /* answers of a device that a repeat gets again */
#define REQUESTS_OUTSTANDING_MAX 4  /* HISTORY without its PAGE or ERROR */
#define PAGE_ENTRIES_MAX         200

/* ENTRIES not yet acknowledged. The least lets one frame of any size go out. */
#define WINDOW_BYTES_MIN     FRAME_BYTES_MAX
#define WINDOW_BYTES_DEFAULT 65536
#define WINDOW_BYTES_MAX     1048576

_Static_assert(OUTCOMES_KEPT >= SENDS_OUTSTANDING_MAX,
               "else the answer to a SEND sent again after a reconnect may be forgotten: STALE");
