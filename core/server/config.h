/*
 * config: what the operator may set, from one table: it gives the fields of struct config, the keys
 * of the file, HOLDFAST_<KEY> of the environment, the flags --<key-with-dashes>, --help, and the
 * table in docs/operations.md.
 *
 * Owner    struct config is a plain value: filled once at start by the main thread, then only read.
 * Thread   Any may read it after start.
 * Order    A flag wins over the environment, that over the file, that over the default.
 * Errors   struct hf_error, EX_CONFIG (EX_USAGE for flags): names the source, line, key, value and
 *          what is allowed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/error.h"

#define CONFIG_TEXT_BYTES_MAX 512

/* NUMBER(key, unit, default, min, max, help)  TEXT(key, default, help)  FLAG(key, default, help) */
#define CONFIG_KEYS(NUMBER, TEXT, FLAG)                                                               \
    TEXT(listen, "127.0.0.1:7443,[::1]:7443",                                                         \
         "Addresses for clients: ADDRESS:PORT, separated by commas")                                  \
    TEXT(                                                                                             \
        proxy_from, "",                                                                               \
        "Proxies, which must say by PROXY protocol 2 whom they bring: networks, separated by commas") \
    TEXT(                                                                                             \
        admin_listen, "127.0.0.1:7480",                                                               \
        "Address for /metrics, /ready and /live; empty: none. Nothing there is secret or guarded")    \
    TEXT(data_dir, "/var/lib/holdfast", "Directory of the store; made if its parent is there")        \
    TEXT(tls_cert, "/etc/holdfast/server.crt", "Certificate chain, PEM, leaf first")                  \
    TEXT(tls_key, "/etc/holdfast/server.key", "Its private key, PEM, mode 0600")                      \
    TEXT(login_keys, "/etc/holdfast/login-keys.jwks",                                                 \
         "Keys that log-in tokens are checked with: JSON Web Key Set, mode 0600")                     \
    TEXT(ticket_keys, "", "File of the TLS ticket keys; empty: ticket-keys in data_dir")              \
    TEXT(resume_keys, "", "File of the resume token keys; empty: resume-keys in data_dir")            \
    FLAG(tls_psk_ke, false,                                                                           \
         "Let clients resume without Diffie-Hellman: cheap in a storm, no forward secrecy")           \
    TEXT(token_audience, "", "What a log-in token's aud must hold; empty: tokens without aud")        \
    NUMBER(token_life_max_s, "s", 2592000, 0, 4294967295,                                             \
           "How far ahead a token's exp may lie; 0: any")                                             \
    NUMBER(token_leeway_s, "s", 30, 0, 3600, "How far the issuer's clock may be from ours")           \
    NUMBER(login_life_s, "s", 604800, 60, 31536000, "Life of a login, and of its resume token")       \
    NUMBER(cores, "", 0, 0, 64, "Cores to serve with; 0: as many as the process may use")             \
    NUMBER(volumes, "", 16, 16, 64, "LMDB environments; fixed when data_dir is made")                 \
    NUMBER(max_connections, "", 50000, 16, 16777216, "Connections in all")                            \
    NUMBER(handshakes_max, "", 256, 1, 65536, "TLS handshakes in progress, a core; 42 KB each")       \
    NUMBER(handshake_timeout_ms, "ms", 10000, 100, 600000, "From accept to the end of HELLO")         \
    NUMBER(connections_per_address_max, "", 0, 0, 16777216,                                           \
           "Connections of one address (IPv6: one /64); each core has its share; 0: any")             \
    NUMBER(keepalive_s, "s", 270, 5, 86400, "A client that is silent for twice as long is ended")     \
    NUMBER(partial_timeout_s, "s", 30, 1, 3600,                                                       \
           "A client that has begun a frame and doesn't end it for so long is ended")                 \
    NUMBER(send_timeout_s, "s", 60, 1, 3600,                                                          \
           "A connection that takes nothing for so long is ended")                                    \
    NUMBER(frames_per_s_max, "", 2000, 1, 1000000, "Frames a second of one connection, over 10 s")    \
    NUMBER(bytes_per_s_max, "bytes", 2097152, 16384, 1073741824,                                      \
           "Bytes a second of one connection, over 10 s")                                             \
    NUMBER(window_bytes_max, "bytes", 262144, 16000, 1048576,                                         \
           "ENTRIES that a client may have unacknowledged")                                           \
    NUMBER(journal_bytes, "bytes", 268435456, 4194304, 1099511627776,                                 \
           "Journals of all cores together")                                                          \
    NUMBER(journal_segment_bytes, "bytes", 16777216, 262144, 1073741824,                              \
           "One file of a journal; at least 4 a core are used")                                       \
    NUMBER(flush_percent, "%", 30, 5, 70, "Journal in use when the flush into the volumes begins")    \
    NUMBER(flush_interval_s, "s", 300, 1, 86400, "And at least so often, when there is anything")     \
    NUMBER(recent_bytes, "bytes", 2097152, 65536, 1073741824,                                         \
           "Recent entries kept in memory, a core")                                                   \
    NUMBER(retention_count, "", 100000, 0, 1000000000000, "Entries kept a user; 0: all")              \
    NUMBER(retention_age_s, "s", 0, 0, 4294967295, "How long entries are kept; 0: for ever")          \
    NUMBER(out_quota, "", 4096, 16, 1000000,                                                          \
           "Messages waiting for one destination partition, a partition")                             \
    FLAG(accept_unknown_users, false, "Take messages for users who have never logged in")             \
    NUMBER(drain_timeout_s, "s", 30, 0, 3600, "After SIGTERM, how long clients have to leave")        \
    NUMBER(drain_spread_ms, "ms", 10000, 0, 3600000, "Over how long they are told to come back")      \
    TEXT(log_level, "info", "error, warning, info or debug")                                          \
    FLAG(pin_cores, true, "Pin each reactor to its CPU")                                              \
    TEXT(io_features_off, "", "Features not to use: no_sqarray, cmd_sock, o_direct")

struct config {
#define CONFIG_NUMBER_FIELD(key, unit, fallback, min, max, help) uint64_t key;
#define CONFIG_TEXT_FIELD(key, fallback, help)                   char key[CONFIG_TEXT_BYTES_MAX];
#define CONFIG_FLAG_FIELD(key, fallback, help)                   bool key;
    CONFIG_KEYS(CONFIG_NUMBER_FIELD, CONFIG_TEXT_FIELD, CONFIG_FLAG_FIELD)
#undef CONFIG_NUMBER_FIELD
#undef CONFIG_TEXT_FIELD
#undef CONFIG_FLAG_FIELD
};

/* The defaults. */
void config_init(struct config *config);

/*
 * A file of lines `key = value`; # begins a comment, at the start of a line or after a space. A
 * value that has spaces at its ends, or " #" in it, stands in double quotes. Numbers of bytes may
 * end in k, M, G or T (times 1,024). No key may stand twice.
 */
bool config_load_file(struct config *config, const char *path, struct hf_error *error)
    __attribute__((warn_unused_result));

/* HOLDFAST_<KEY>. Other variables of that prefix are ignored: orchestrators make some of their own.
 */
bool config_load_environment(struct config *config, struct hf_error *error)
    __attribute__((warn_unused_result));

/*
 * --key-with-dashes VALUE, --key-with-dashes=VALUE, --flag, --no-flag. arguments[*used] is looked
 * at; *used goes beyond what was taken. False with error->exit_code 0: it is no key of ours.
 */
bool config_load_argument(struct config *config, char *const *arguments, int count, int *used,
                          struct hf_error *error) __attribute__((warn_unused_result));

/* What must fit together, and texts that have a form. Opens nothing. */
bool config_check(const struct config *config, struct hf_error *error)
    __attribute__((warn_unused_result));

/* The table: as --help has it, as a file with every default, and as Markdown for the docs. */
void config_print_help(FILE *file);
void config_print_markdown(FILE *file);

/* What holds now, as a file that config_load_file reads. */
void config_print(FILE *file, const struct config *config);
