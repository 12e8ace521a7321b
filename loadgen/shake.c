#include "loadgen/shake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/io/thread.h"

bool shakes_open(struct shakes *shakes, const struct shakes_options *options,
                 struct hf_error *error)
{
    const struct tls_client_options tls_options = {
        .ca = options->ca,
        .insecure = options->ca == NULL,
        .psk_ke = options->psk_ke,
    };

    memset(shakes, 0, sizeof *shakes);
    shakes->server_name = options->server_name;
    shakes->place_count = options->places;
    shakes->free_count = options->places;
    shakes->places = calloc(options->places, sizeof *shakes->places);
    shakes->free_ = calloc(options->places, sizeof *shakes->free_);
    shakes->tickets = calloc(SHAKE_TICKETS_MAX, sizeof *shakes->tickets);
    if (shakes->places == NULL || shakes->free_ == NULL || shakes->tickets == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%u handshakes", options->places);
        shakes_close(shakes);
        return false;
    }
    for (uint16_t i = 0; i < options->places; i++) {
        shakes->free_[i] = (uint16_t)(options->places - 1 - i);
    }
    shakes->tls = tls_client_open(&tls_options, error);
    if (shakes->tls == NULL) {
        shakes_close(shakes);
        return false;
    }
    return true;
}

void shakes_close(struct shakes *shakes)
{
    for (uint16_t i = 0; shakes->places != NULL && i < shakes->place_count; i++) {
        tls_handshake_end(shakes->places[i].tls);
    }
    if (shakes->tickets != NULL) {
        explicit_bzero(shakes->tickets, SHAKE_TICKETS_MAX * sizeof *shakes->tickets);
    }
    if (shakes->tls != NULL) {
        tls_client_close(shakes->tls);
    }
    free(shakes->tickets);
    free(shakes->free_);
    free(shakes->places);
    memset(shakes, 0, sizeof *shakes);
}

uint16_t shakes_take(struct shakes *shakes, uint32_t client)
{
    if (shakes->free_count == 0) {
        return UINT16_MAX;
    }

    const uint16_t place = shakes->free_[--shakes->free_count];
    struct shake *shake = &shakes->places[place];

    shake->tls = NULL;
    shake->client = client;
    shake->in_bytes = 0;
    shake->out_bytes = 0;
    shake->out_sent = 0;
    shake->sending = false;
    shake->keyed = false;
    shake->over = false;
    shake->resumed = false;
    return place;
}

void shakes_give(struct shakes *shakes, uint16_t place)
{
    HF_ASSERT(shakes->free_count < shakes->place_count);
    tls_handshake_end(shakes->places[place].tls);
    shakes->places[place].tls = NULL;
    shakes->free_[shakes->free_count++] = place;
}

bool shake_begin(struct shakes *shakes, struct shake *shake, bool resume, uint64_t now_unix_ms)
{
    const uint8_t *session = NULL;
    size_t session_bytes = 0;

    if (resume && shakes->ticket_count > 0) {
        const struct shake_ticket *ticket =
            &shakes->tickets[shakes->ticket_get_++ % shakes->ticket_count];
        session = ticket->session;
        session_bytes = ticket->byte_count;
    }
    shake->tls = tls_handshake_connect(shakes->tls, shakes->server_name, session, session_bytes,
                                       now_unix_ms);
    return shake->tls != NULL;
}

/* Of the first record that has come, or of all where it isn't whole. */
static size_t first_record_bytes(const struct shake *shake)
{
    const size_t header = TLS_RECORD_HEADER_BYTES;

    if (shake->in_bytes >= header) {
        const size_t record = header + load_be16(shake->in + 3);

        if (record < shake->in_bytes) {
            return record;
        }
    }
    return shake->in_bytes;
}

/* One record at a time: each may be most of a millisecond of cryptography, and others on this CPU
 * may be measuring. */
enum tls_handshake_status shake_step(struct shakes *shakes, struct shake *shake,
                                     struct tls_keys *keys, uint64_t now_unix_ms)
{
    enum tls_handshake_status status;
    size_t used;

    do {
        struct tls_handshake_io io = {
            .in = shake->in,
            .in_bytes = first_record_bytes(shake),
            .out = shake->out,
            .out_capacity = TLS_HANDSHAKE_OUT_BYTES, /* the rest is HELLO's */
            .out_bytes = shake->out_bytes,
            .now_unix_ms = now_unix_ms,
        };

        status = tls_handshake_step(shake->tls, &io);
        used = io.in_used;
        shake_consume(shake, used);
        shake->out_bytes = (uint32_t)io.out_bytes;
        thread_give_way();
    } while (status == TLS_HANDSHAKE_WANT_INPUT && used != 0 && shake->in_bytes != 0);
    if (status == TLS_HANDSHAKE_DONE) {
        shake->resumed = tls_handshake_resumed(shake->tls);
        shake->keyed = true;
        tls_handshake_take_keys(shake->tls, keys);
    }
    if (status == TLS_HANDSHAKE_FAILED && shakes->fault_text[0] == '\0') {
        (void)snprintf(shakes->fault_text, sizeof shakes->fault_text, "%s",
                       tls_handshake_text(shake->tls));
    }
    return status;
}

bool shake_received(struct shake *shake, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count > SHAKE_IN_BYTES - shake->in_bytes) {
        return false;
    }
    memcpy(shake->in + shake->in_bytes, bytes, byte_count);
    shake->in_bytes += (uint32_t)byte_count;
    return true;
}

void shake_consume(struct shake *shake, size_t byte_count)
{
    HF_ASSERT(byte_count <= shake->in_bytes);
    memmove(shake->in, shake->in + byte_count, shake->in_bytes - byte_count);
    shake->in_bytes -= (uint32_t)byte_count;
}

bool shake_seal_hello(struct shake *shake, struct tls_core *core, struct tls_keys *keys,
                      const uint8_t *hello, size_t hello_bytes)
{
    const struct iovec part = { (void *)(uintptr_t)hello, hello_bytes };
    const size_t room = SHAKE_OUT_BYTES - shake->out_bytes;

    if (tls_record_sealed_bytes(core, keys, hello_bytes) > room) {
        return false;
    }

    const size_t sealed =
        tls_record_seal(core, keys, &part, 1, shake->out + shake->out_bytes, room);

    shake->out_bytes += (uint32_t)sealed;
    return sealed > 0;
}

void shake_finish(struct shakes *shakes, struct shake *shake)
{
    struct shake_ticket *ticket = &shakes->tickets[shakes->ticket_put_];
    const size_t byte_count =
        tls_handshake_session(shake->tls, ticket->session, sizeof ticket->session);

    if (byte_count > 0) {
        ticket->byte_count = byte_count;
        shakes->ticket_put_ = (shakes->ticket_put_ + 1) % SHAKE_TICKETS_MAX;
        if (shakes->ticket_count < SHAKE_TICKETS_MAX) {
            shakes->ticket_count++;
        }
    }
    tls_handshake_end(shake->tls);
    shake->tls = NULL;
}
