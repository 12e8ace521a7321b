/* The mailboxes between cores, and what can become of them. */
#include <stdlib.h>

#include "core/base/check.h"
#include "core/engine/stream_frame.h"
#include "tests/sim/fail.h"
#include "tests/sim/host.h"

#define LOSS_UNTOLD_MAX 300 /* events until a loss is noticed */

static void say_frame(const struct core *core, const struct stream_header *header,
                      const uint8_t *bytes, size_t byte_count)
{
    struct stream_records records;
    struct stream_ack ack;

    if (header->kind == STREAM_RECORDS && stream_decode_records(bytes, byte_count, &records)) {
        sim_say("core %u: link %u to %u, %llu.%llu: records %llu + %u", core->number,
                header->source.value, header->destination.value, (unsigned long long)header->term,
                (unsigned long long)header->number, (unsigned long long)records.first,
                records.count);
    } else if (header->kind == STREAM_ACK && stream_decode_ack(bytes, byte_count, &ack)) {
        sim_say("core %u: link %u to %u, %llu.%llu: acknowledged up to %llu, %u exceptions",
                core->number, header->source.value, header->destination.value,
                (unsigned long long)header->term, (unsigned long long)header->number,
                (unsigned long long)ack.up_to, ack.count);
    } else {
        sim_say("core %u: link %u to %u, %llu.%llu ends", core->number, header->source.value,
                header->destination.value, (unsigned long long)header->term,
                (unsigned long long)header->number);
    }
}

/* A link that had another number before was begun anew. */
static void note_link(struct host *host, const struct stream_header *header)
{
    for (uint32_t i = 0; i < host->link_count; i++) {
        struct host_link *link = &host->links[i];

        if (link->source.value == header->source.value &&
            link->destination.value == header->destination.value) {
            if (link->number < header->number) {
                host_count(host, HAZARD_LINKS_RENUMBERED);
                link->number = header->number;
            }
            return;
        }
    }
    if (host->link_count == host->link_capacity) {
        host->link_capacity = host->link_capacity * 2 + 32;
        host->links = realloc(host->links, host->link_capacity * sizeof *host->links);
        SIM_CHECK(host->links != NULL, "out of memory");
    }
    host->links[host->link_count++] = (struct host_link){
        .source = header->source,
        .destination = header->destination,
        .number = header->number,
    };
}

void host_on_stream(struct host *host, struct core *core, const struct effect *effect)
{
    const struct host_partition *partition = host_find_partition(host, effect->partition);
    const uint16_t home = host_core_of(host, effect->partition);
    struct stream_header header;

    SIM_CHECK(partition != NULL, "a stream frame to partition %u, where nobody lives",
              effect->partition.value);
    SIM_CHECK(stream_decode_header(effect->bytes, effect->byte_count, &header),
              "a stream frame that can't be read");
    if (header.kind == STREAM_RECORDS) {
        note_link(host, &header);
        checks_on_stream(host, effect);
    }
    if (sim_verbose()) {
        say_frame(core, &header, effect->bytes, effect->byte_count);
    }
    if (partition->state != PARTITION_OPEN) {
        return; /* it has no home now; links begin anew when it has one */
    }

    struct parcel *parcel = parcel_new(effect->bytes, effect->byte_count);

    parcel->partition = effect->partition;
    parcel->from_core = core->number;
    parcels_put(&host->cores[home].inbox[core->number], parcel);
}

static void lose_parcels(struct host *host, struct core *core, struct parcels *inbox)
{
    for (struct parcel *parcel = parcels_take(inbox); parcel != NULL;
         parcel = parcels_take(inbox)) {
        if (prng_chance(host->prng, 500)) {
            parcel->blocked = false;
            parcels_put(&core->late, parcel);
        } else {
            free(parcel);
        }
    }
}

/* False: there is one core only. */
static bool draw_pair(struct host *host, uint16_t *a, uint16_t *b)
{
    if (host->core_count < 2) {
        return false;
    }
    *a = (uint16_t)prng_below(host->prng, host->core_count);
    *b = (uint16_t)((*a + 1U + prng_below(host->prng, host->core_count - 1U)) % host->core_count);
    return true;
}

/* Both sides are told that links between these cores begin anew. */
static void begin_anew(struct host *host, uint16_t a, uint16_t b)
{
    for (uint32_t i = 0; i < host->partition_count; i++) {
        const uint16_t home = host_core_of(host, host->partitions[i].id);

        if (home == a || home == b) {
            struct core *other = &host->cores[home == a ? b : a];

            host_begin_turn(host, other);
            engine_on_link_down(other->engine, host->partitions[i].id);
            host_take_effects(host, other);
            host_run_engine(host, other);
        }
    }
}

void host_cut_link(struct host *host)
{
    uint16_t a, b;

    if (!draw_pair(host, &a, &b)) {
        return;
    }
    sim_say("the link between cores %u and %u is cut", a, b);
    host_count(host, HAZARD_LINKS_CUT);
    lose_parcels(host, &host->cores[a], &host->cores[a].inbox[b]);
    lose_parcels(host, &host->cores[b], &host->cores[b].inbox[a]);
    begin_anew(host, a, b);
}

/* The frames behind what was lost still arrive, for a while, and so do the answers. */
void host_lose_frames(struct host *host)
{
    uint16_t a, b;

    if (!draw_pair(host, &a, &b) || host->cores[a].inbox[b].first == NULL) {
        return;
    }
    sim_say("frames from core %u to core %u are lost", b, a);
    host_count(host, HAZARD_FRAMES_LOST);
    free(parcels_take(&host->cores[a].inbox[b]));
    if (host->loss_due[a][b] == 0) {
        host->loss_due[a][b] = *host->event + prng_between(host->prng, 1, LOSS_UNTOLD_MAX);
    }
}

void host_loss_step(struct host *host)
{
    for (uint16_t a = 0; a < host->core_count; a++) {
        for (uint16_t b = 0; b < host->core_count; b++) {
            if (host->loss_due[a][b] != 0 && (host->calm || *host->event >= host->loss_due[a][b])) {
                host->loss_due[a][b] = 0;
                begin_anew(host, a, b);
            }
        }
    }
}
