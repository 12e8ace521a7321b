/*
 * refused: what a peer with good keys may not send, and the alert that RFC 8446 has for it. The unit
 * tests show it to the record layer, tests/conformance to a server.
 */
#pragma once

#include "core/tls/record.h"

enum { TO_SERVER, TO_CLIENT };

/* Records whose inner plaintext is wrong: given with its content type and padding. */
struct refused_inner {
    const char *name;
    const char *source; /* section of RFC 8446 */
    int to;
    const char *inner;
    size_t inner_bytes;
    enum tls_fault fault;
    enum tls_alert alert;
};

#define INNER(text) text, sizeof(text) - 1

static const struct refused_inner refused_inner[] = {
    { "no content at all", "5.4", TO_SERVER, "", 0, TLS_FAULT_NO_CONTENT_TYPE, 10 },
    { "one zero", "5.4", TO_SERVER, INNER("\0"), TLS_FAULT_NO_CONTENT_TYPE, 10 },
    { "zeros only", "5.4", TO_SERVER, INNER("\0\0\0\0\0\0\0\0"), TLS_FAULT_NO_CONTENT_TYPE, 10 },
    { "inner change_cipher_spec", "5", TO_SERVER, INNER("\x01\x14"), TLS_FAULT_CONTENT_TYPE, 10 },
    { "unknown inner type", "5", TO_SERVER, INNER("x\x18"), TLS_FAULT_CONTENT_TYPE, 10 },
    { "unknown inner type, empty", "5", TO_SERVER, INNER("\x18"), TLS_FAULT_CONTENT_TYPE, 10 },
    { "empty alert", "5.1, 5.4", TO_SERVER, INNER("\x15"), TLS_FAULT_EMPTY_FRAGMENT, 10 },
    { "empty alert, padded", "5.1, 5.4", TO_SERVER, INNER("\x15\0\0"), TLS_FAULT_EMPTY_FRAGMENT,
      10 },
    { "alert of one byte", "5.1, 6.2", TO_SERVER, INNER("\x01\x15"), TLS_FAULT_ALERT_LENGTH, 50 },
    { "two alerts in a record", "5.1, 6.2", TO_SERVER, INNER("\x01\x5a\x01\x00\x15"),
      TLS_FAULT_ALERT_LENGTH, 50 },
    { "fatal alert", "6.2", TO_SERVER, INNER("\x02\x50\x15"), TLS_FAULT_PEER_ALERT,
      TLS_ALERT_NONE },
    { "warning is fatal too", "6", TO_SERVER, INNER("\x01\x50\x15"), TLS_FAULT_PEER_ALERT,
      TLS_ALERT_NONE },
    { "level that there isn't", "6", TO_SERVER, INNER("\x07\x50\x15"), TLS_FAULT_PEER_ALERT,
      TLS_ALERT_NONE },
    { "unknown alert, as a warning", "6", TO_SERVER, INNER("\x01\xc8\x15"), TLS_FAULT_PEER_ALERT,
      TLS_ALERT_NONE },
    { "empty handshake record", "5.1, 5.4", TO_SERVER, INNER("\x16"), TLS_FAULT_EMPTY_FRAGMENT,
      10 },
    { "ClientHello: no renegotiation", "4.1.2", TO_SERVER, INNER("\x01\0\0\0\x16"),
      TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "HelloRequest of old", "4", TO_SERVER, INNER("\0\0\0\0\x16"), TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "ServerHello", "4", TO_SERVER, INNER("\x02\0\0\0\x16"), TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "EndOfEarlyData", "4.5", TO_SERVER, INNER("\x05\0\0\0\x16"), TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "Certificate after the handshake", "4.6.2", TO_SERVER, INNER("\x0b\0\0\0\x16"),
      TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "CertificateVerify", "4.6.2", TO_SERVER, INNER("\x0f\0\0\0\x16"), TLS_FAULT_HANDSHAKE_TYPE,
      10 },
    { "Finished", "4.4.4", TO_SERVER, INNER("\x14\0\0\0\x16"), TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "ticket to a server", "4.6.1", TO_SERVER, INNER("\x04\0\0\x01\0\x16"),
      TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "message of no type", "4", TO_SERVER, INNER("\xff\0\0\0\x16"), TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "CertificateRequest to a client", "4.6.2", TO_CLIENT, INNER("\x0d\0\0\0\x16"),
      TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "KeyUpdate with an unknown request", "4.6.3", TO_SERVER, INNER("\x18\0\0\x01\x02\x16"),
      TLS_FAULT_KEY_UPDATE_VALUE, 47 },
    { "KeyUpdate without its byte", "6.2", TO_SERVER, INNER("\x18\0\0\0\x16"),
      TLS_FAULT_KEY_UPDATE_LENGTH, 50 },
    { "KeyUpdate of two bytes", "6.2", TO_SERVER, INNER("\x18\0\0\x02\0\0\x16"),
      TLS_FAULT_KEY_UPDATE_LENGTH, 50 },
    { "KeyUpdate of 64 KB", "6.2", TO_SERVER, INNER("\x18\x01\x16"), TLS_FAULT_KEY_UPDATE_LENGTH,
      50 },
    { "two KeyUpdates in a record", "5.1", TO_SERVER, INNER("\x18\0\0\x01\0\x18\0\0\x01\0\x16"),
      TLS_FAULT_KEY_UPDATE_NOT_LAST, 10 },
    { "half a KeyUpdate behind another", "5.1", TO_SERVER, INNER("\x18\0\0\x01\0\x18\x16"),
      TLS_FAULT_KEY_UPDATE_NOT_LAST, 10 },
    { "ticket behind a KeyUpdate", "5.1", TO_CLIENT, INNER("\x18\0\0\x01\0\x04\0\0\x01\0\x16"),
      TLS_FAULT_KEY_UPDATE_NOT_LAST, 10 },
    { "ticket of 64 KB", "4.6.1", TO_CLIENT, INNER("\x04\x01\0\0\x16"),
      TLS_FAULT_HANDSHAKE_TOO_LONG, 47 },
};

#undef INNER

/* What shows in the five bytes before the sealed part already. */
struct refused_header {
    const char *name;
    const char *source;
    const char *header;
    enum tls_fault fault;
    enum tls_alert alert;
};

static const struct refused_header refused_header[] = {
    { "change_cipher_spec after Finished", "5", "\x14\x03\x03\x00\x01", TLS_FAULT_PLAINTEXT, 10 },
    { "plaintext alert after Finished", "5", "\x15\x03\x03\x00\x02", TLS_FAULT_PLAINTEXT, 10 },
    { "plaintext handshake after Finished", "5", "\x16\x03\x03\x00\x05", TLS_FAULT_PLAINTEXT, 10 },
    { "unknown record type", "5", "\x18\x03\x03\x00\x20", TLS_FAULT_RECORD_TYPE, 10 },
    { "HTTP", "5", "GET /", TLS_FAULT_RECORD_TYPE, 10 },
    { "longer than 2^14 + 256", "5.2", "\x17\x03\x03\x41\x01", TLS_FAULT_RECORD_TOO_LONG, 22 },
    { "of 64 KB", "5.2", "\x17\x03\x03\xff\xff", TLS_FAULT_RECORD_TOO_LONG, 22 },
    { "empty", "5.2", "\x17\x03\x03\x00\x00", TLS_FAULT_BAD_MAC, 20 },
    { "shorter than a tag", "5.2", "\x17\x03\x03\x00\x0f", TLS_FAULT_BAD_MAC, 20 },
};

enum {
    REFUSED_INNER_COUNT = sizeof refused_inner / sizeof refused_inner[0],
    REFUSED_HEADER_COUNT = sizeof refused_header / sizeof refused_header[0],
};
