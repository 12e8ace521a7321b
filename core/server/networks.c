#include "core/server/networks.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#define TEXT_BYTES 64

static const uint8_t v4_mapped[12] = { [10] = 0xff, [11] = 0xff };

static bool refuse(struct hf_error *error, const char *text, size_t text_bytes, const char *why)
{
    hf_error_set(error, EX_CONFIG, 0, "%.*s: %s", (int)(text_bytes < 64 ? text_bytes : 64), text,
                 why);
    return false;
}

/* Digits alone, up to `max`. */
static bool parse_bits(const char *text, unsigned long max, uint8_t *bits)
{
    char *end;
    const unsigned long number = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || number > max) {
        return false;
    }
    *bits = (uint8_t)number;
    return true;
}

static bool is_in(const struct network *network, const uint8_t address[16])
{
    const size_t whole = network->bits / 8;
    const uint8_t mask = (uint8_t)(0xff00 >> network->bits % 8);

    return memcmp(network->address, address, whole) == 0 &&
           (mask == 0 || ((network->address[whole] ^ address[whole]) & mask) == 0);
}

/* Bits set behind those that count: a slip, that would mean another network than was written. */
static bool has_host_bits(const struct network *network)
{
    for (uint32_t i = network->bits; i < 128; i++) {
        if ((network->address[i / 8] & 0x80 >> i % 8) != 0) {
            return true;
        }
    }
    return false;
}

static bool parse_one(const char *text, size_t text_bytes, struct network *network,
                      struct hf_error *error)
{
    char copy[TEXT_BYTES];

    if (text_bytes == 0 || text_bytes >= sizeof copy) {
        return refuse(error, text, text_bytes, "not a network");
    }
    memcpy(copy, text, text_bytes);
    copy[text_bytes] = '\0';

    char *slash = strchr(copy, '/');

    if (slash != NULL) {
        *slash = '\0';
    }

    const bool is_v4 = inet_pton(AF_INET, copy, network->address + 12) == 1;

    if (!is_v4 && inet_pton(AF_INET6, copy, network->address) != 1) {
        return refuse(error, text, text_bytes,
                      "not a network: write 192.0.2.0/24 or 2001:db8::/32");
    }
    network->bits = is_v4 ? 32 : 128;
    if (slash != NULL && !parse_bits(slash + 1, network->bits, &network->bits)) {
        return refuse(error, text, text_bytes, "a wrong number of bits");
    }
    if (is_v4) {
        memcpy(network->address, v4_mapped, sizeof v4_mapped);
        network->bits = (uint8_t)(network->bits + 96);
    }
    if (has_host_bits(network)) {
        return refuse(error, text, text_bytes, "has bits behind those that count");
    }
    return true;
}

bool networks_parse(const char *text, struct networks *networks, struct hf_error *error)
{
    memset(networks, 0, sizeof *networks);
    text += strspn(text, " ");
    while (*text != '\0') {
        const size_t length = strcspn(text, ", ");

        if (networks->count == NETWORKS_MAX) {
            hf_error_set(error, EX_CONFIG, 0, "more than %d networks", NETWORKS_MAX);
            return false;
        }
        if (!parse_one(text, length, &networks->rows[networks->count], error)) {
            return false;
        }
        networks->count++;
        text += length;
        text += strspn(text, " ");
        if (*text == ',') {
            text++;
            text += strspn(text, " ");
            if (*text == '\0') {
                return refuse(error, ",", 1, "a network is to follow");
            }
        } else if (*text != '\0') {
            return refuse(error, text, strlen(text), "expected a comma");
        }
    }
    return true;
}

bool networks_have(const struct networks *networks, const struct sockaddr *address)
{
    uint8_t bytes[16];

    if (address->sa_family == AF_INET6) {
        memcpy(bytes, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
    } else if (address->sa_family == AF_INET) {
        memcpy(bytes, v4_mapped, sizeof v4_mapped);
        memcpy(bytes + 12, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    } else {
        return false;
    }
    for (uint32_t i = 0; i < networks->count; i++) {
        if (is_in(&networks->rows[i], bytes)) {
            return true;
        }
    }
    return false;
}
