#include "core/tls/devcert.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include <mbedtls/asn1write.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ecp.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/pk.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/x509_crt.h>

#include "core/base/check.h"

enum {
    DEVCERT_NAMES_MAX = 16,
    DEVCERT_NAME_BYTES_MAX = 64, /* ub-common-name of RFC 5280 */
    DEVCERT_PEM_BYTES_MAX = 4096,
    DEVCERT_SERIAL_BYTES = 16,
};

/* Everything that must be freed, whatever step fails. */
struct devcert_work {
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
    mbedtls_pk_context ca_key;
    mbedtls_pk_context key;
    char subject[DEVCERT_NAME_BYTES_MAX + 8];
    char issuer[DEVCERT_NAME_BYTES_MAX + 8];
    char from[16];
    char until[16];
    mbedtls_x509_san_list names[2 * DEVCERT_NAMES_MAX];
    size_t name_count;
};

static int devcert_fail(struct hf_error *error, const char *what, int code)
{
    char text[100];

    mbedtls_strerror(code, text, sizeof text);
    hf_error_set(error, EX_SOFTWARE, 0, "%s: %s (-0x%04x)", what, text, (unsigned)-code);
    return -1;
}

/* Nothing that a distinguished name would have to escape. */
static bool devcert_name_valid(const char *name)
{
    const size_t name_bytes = strlen(name);
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  " .:-_*";

    return name_bytes > 0 && name_bytes <= DEVCERT_NAME_BYTES_MAX &&
           strspn(name, allowed) == name_bytes;
}

/* The list is only read: mbedTLS's type lacks a const. */
static void devcert_add_name(struct devcert_work *work, int type, const void *name,
                             size_t name_bytes)
{
    mbedtls_x509_san_list *entry = &work->names[work->name_count];

    entry->node.type = type;
    entry->node.san.unstructured_name.p = (unsigned char *)(uintptr_t)name;
    entry->node.san.unstructured_name.len = name_bytes;
    if (work->name_count > 0) {
        work->names[work->name_count - 1].next = entry;
    }
    work->name_count++;
}

static int devcert_set_names(struct devcert_work *work, const struct devcert_options *options,
                             struct hf_error *error)
{
    if (options->name_count == 0 || options->name_count > DEVCERT_NAMES_MAX ||
        options->address_count > DEVCERT_NAMES_MAX) {
        hf_error_set(error, EX_USAGE, 0,
                     "a server has 1 to %d names and up to %d addresses, not %zu and %zu",
                     DEVCERT_NAMES_MAX, DEVCERT_NAMES_MAX, options->name_count,
                     options->address_count);
        return -1;
    }
    for (size_t index = 0; index < options->name_count; index++) {
        const char *name = options->names[index];

        if (!devcert_name_valid(name)) {
            hf_error_set(error, EX_USAGE, 0, "unusable name of a server: '%s'", name);
            return -1;
        }
        devcert_add_name(work, MBEDTLS_X509_SAN_DNS_NAME, name, strlen(name));
    }
    for (size_t index = 0; index < options->address_count; index++) {
        const struct devcert_address *address = &options->addresses[index];

        HF_ASSERT(address->byte_count == 4 || address->byte_count == 16);
        devcert_add_name(work, MBEDTLS_X509_SAN_IP_ADDRESS, address->bytes, address->byte_count);
    }
    return 0;
}

static void devcert_time(char out[16], uint64_t unix_ms)
{
    const time_t seconds = (time_t)(unix_ms / 1000);
    struct tm when;

    gmtime_r(&seconds, &when);
    strftime(out, 16, "%Y%m%d%H%M%S", &when);
}

static int devcert_prepare(struct devcert_work *work, const struct devcert_options *options,
                           struct hf_error *error)
{
    const uint64_t day_ms = 86400000;

    if (!devcert_name_valid(options->ca_name)) {
        hf_error_set(error, EX_USAGE, 0, "unusable name of an authority: '%s'", options->ca_name);
        return -1;
    }
    if (devcert_set_names(work, options, error) != 0) {
        return -1;
    }
    snprintf(work->subject, sizeof work->subject, "CN=%s", options->names[0]);
    snprintf(work->issuer, sizeof work->issuer, "CN=%s", options->ca_name);
    devcert_time(work->from, options->now_unix_ms - day_ms);
    devcert_time(work->until, options->now_unix_ms + options->days * day_ms);

    const int failed =
        mbedtls_ctr_drbg_seed(&work->drbg, mbedtls_entropy_func, &work->entropy, NULL, 0);

    return failed == 0 ? 0 : devcert_fail(error, "random generator", failed);
}

static int devcert_make_key(struct devcert_work *work, mbedtls_pk_context *key)
{
    const int failed = mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY));

    return failed != 0 ? failed
                       : mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key),
                                             mbedtls_ctr_drbg_random, &work->drbg);
}

static int devcert_write_leaf_extensions(struct devcert_work *work, mbedtls_x509write_cert *write)
{
    mbedtls_asn1_sequence usage = { 0 };
    int failed;

    usage.buf.tag = MBEDTLS_ASN1_OID;
    usage.buf.p = (unsigned char *)(uintptr_t)MBEDTLS_OID_SERVER_AUTH; /* only read */
    usage.buf.len = MBEDTLS_OID_SIZE(MBEDTLS_OID_SERVER_AUTH);
    failed = mbedtls_x509write_crt_set_basic_constraints(write, 0, -1);
    if (failed == 0) {
        failed = mbedtls_x509write_crt_set_key_usage(write, MBEDTLS_X509_KU_DIGITAL_SIGNATURE);
    }
    if (failed == 0) {
        failed = mbedtls_x509write_crt_set_ext_key_usage(write, &usage);
    }
    if (failed == 0) {
        failed = mbedtls_x509write_crt_set_subject_alternative_name(write, work->names);
    }
    return failed;
}

static int devcert_write_ca_extensions(mbedtls_x509write_cert *write)
{
    const int failed = mbedtls_x509write_crt_set_basic_constraints(write, 1, 0);

    return failed != 0 ? failed
                       : mbedtls_x509write_crt_set_key_usage(write, MBEDTLS_X509_KU_KEY_CERT_SIGN |
                                                                        MBEDTLS_X509_KU_CRL_SIGN);
}

/* Writes the PEM of the authority's certificate or of the leaf's into `out`. */
static int devcert_write(struct devcert_work *work, bool ca, char *out)
{
    mbedtls_x509write_cert write;
    uint8_t serial[DEVCERT_SERIAL_BYTES];
    int failed = mbedtls_ctr_drbg_random(&work->drbg, serial, sizeof serial);

    serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40); /* positive, and of full length */
    mbedtls_x509write_crt_init(&write);
    mbedtls_x509write_crt_set_version(&write, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&write, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&write, ca ? &work->ca_key : &work->key);
    mbedtls_x509write_crt_set_issuer_key(&write, &work->ca_key);
    if (failed == 0) {
        failed = mbedtls_x509write_crt_set_serial_raw(&write, serial, sizeof serial);
    }
    if (failed == 0) {
        failed = mbedtls_x509write_crt_set_subject_name(&write, ca ? work->issuer : work->subject);
    }
    if (failed == 0) {
        failed = mbedtls_x509write_crt_set_issuer_name(&write, work->issuer);
    }
    if (failed == 0) {
        failed = mbedtls_x509write_crt_set_validity(&write, work->from, work->until);
    }
    if (failed == 0) {
        failed =
            ca ? devcert_write_ca_extensions(&write) : devcert_write_leaf_extensions(work, &write);
    }
    if (failed == 0) {
        failed = mbedtls_x509write_crt_set_subject_key_identifier(&write);
    }
    if (failed == 0) {
        failed = mbedtls_x509write_crt_set_authority_key_identifier(&write);
    }
    if (failed == 0) {
        failed = mbedtls_x509write_crt_pem(&write, (unsigned char *)out, DEVCERT_PEM_BYTES_MAX,
                                           mbedtls_ctr_drbg_random, &work->drbg);
    }
    mbedtls_x509write_crt_free(&write);
    return failed;
}

static int devcert_text(struct tls_pem *pem, const char *text, int failed, const char *what,
                        struct hf_error *error)
{
    return failed != 0 ? devcert_fail(error, what, failed) : tls_pem_copy(pem, text, error);
}

/* `text` holds each PEM in its turn, private ones too. */
static int devcert_write_all(struct devcert *made, struct devcert_work *work, char *text,
                             struct hf_error *error)
{
    int failed = devcert_make_key(work, &work->ca_key);

    if (failed == 0) {
        failed = devcert_make_key(work, &work->key);
    }
    if (failed != 0) {
        return devcert_fail(error, "key generation", failed);
    }
    failed = devcert_write(work, true, text);
    if (devcert_text(&made->ca_certificate, text, failed, "authority", error) != 0) {
        return -1;
    }
    failed = devcert_write(work, false, text);
    if (devcert_text(&made->certificate, text, failed, "certificate", error) != 0) {
        return -1;
    }
    failed = mbedtls_pk_write_key_pem(&work->ca_key, (unsigned char *)text, DEVCERT_PEM_BYTES_MAX);
    if (devcert_text(&made->ca_key, text, failed, "authority's key", error) != 0) {
        return -1;
    }
    failed = mbedtls_pk_write_key_pem(&work->key, (unsigned char *)text, DEVCERT_PEM_BYTES_MAX);
    return devcert_text(&made->key, text, failed, "key", error);
}

static int devcert_run(struct devcert *made, struct devcert_work *work, struct hf_error *error)
{
    char text[DEVCERT_PEM_BYTES_MAX];
    const int result = devcert_write_all(made, work, text, error);

    mbedtls_platform_zeroize(text, sizeof text);
    return result;
}

int devcert_make(struct devcert *made, const struct devcert_options *options,
                 struct hf_error *error)
{
    struct devcert_work *work = calloc(1, sizeof *work);

    memset(made, 0, sizeof *made);
    if (work == NULL) {
        hf_error_set(error, EX_OSERR, 0, "certificate: no memory");
        return -1;
    }
    mbedtls_entropy_init(&work->entropy);
    mbedtls_ctr_drbg_init(&work->drbg);
    mbedtls_pk_init(&work->ca_key);
    mbedtls_pk_init(&work->key);

    int result = devcert_prepare(work, options, error);

    if (result == 0) {
        result = devcert_run(made, work, error);
    }
    if (result != 0) {
        devcert_free(made);
    }
    mbedtls_pk_free(&work->key);
    mbedtls_pk_free(&work->ca_key);
    mbedtls_ctr_drbg_free(&work->drbg);
    mbedtls_entropy_free(&work->entropy);
    mbedtls_platform_zeroize(work, sizeof *work);
    free(work);
    return result;
}

void devcert_free(struct devcert *made)
{
    tls_pem_free(&made->ca_certificate);
    tls_pem_free(&made->ca_key);
    tls_pem_free(&made->certificate);
    tls_pem_free(&made->key);
}
