#include "core/server/reactor_internal.h"

#include "core/base/check.h"

/*
 * How long a peer holds a cell is the peer's affair: a record that isn't ended holds one for input,
 * a socket that nobody reads one for output. So nobody waits for a cell that somebody has held for
 * two seconds, or while a user has more than its share; what a good client does takes less, and if
 * not, it comes back and loses nothing.
 */
#define HOLD_S           2
#define USER_SHARE       8  /* an eighth of a class */
#define INPUT_RESERVE    16 /* a sixteenth of a class is to be free, and two */
#define OUTPUT_RESERVE   8
#define YIELDS_A_TURN    64
#define YIELD_NS         (10 * CLOCK_NS_PER_MS) /* a close takes a turn */
#define CELLLESS_RETRIES 16

static uint32_t capacity_of(const struct cells *cells, enum cell_class class)
{
    return cells->classes_[class].capacity;
}

/* Of the reactor's clock: before then, held for long enough to yield. */
static uint32_t held_long(const struct reactor *reactor)
{
    return reactor->now_s > HOLD_S ? reactor->now_s - HOLD_S : 0;
}

/* ---- input */

static uint32_t input_reserve(const struct reactor *reactor, enum cell_class class)
{
    return capacity_of(&reactor->input_cells, class) / INPUT_RESERVE + 2;
}

static bool input_is_short(const struct reactor *reactor, enum cell_class class)
{
    return cells_free(&reactor->input_cells, class) < input_reserve(reactor, class);
}

static void yield_input(struct reactor *reactor, enum cell_class class)
{
    const struct cell_claim claim = {
        .share = capacity_of(&reactor->input_cells, class) / USER_SHARE,
        .over_before_s = reactor->now_s + 1, /* at once */
        .before_s = held_long(reactor),
    };

    for (uint32_t n = 0; n < YIELDS_A_TURN && input_is_short(reactor, class); n++) {
        const uint32_t slot = cells_find_holder(&reactor->input_cells, class, &claim);

        if (slot == CELL_HOLDER_NONE) {
            return;
        }
        stat_add(&reactor->stats.yields_input, 1);
        reactor_end(reactor, slot, CODE_BUSY);
        link_drop_input(&reactor->pools, &reactor_conn(reactor, slot)->link);
    }
}

/* ---- output */

static uint32_t output_reserve(const struct reactor *reactor, enum cell_class class)
{
    return class == CELL_LARGE ? OUTPUT_LARGE_CELLS
                               : capacity_of(&reactor->cells, class) / OUTPUT_RESERVE;
}

/* A socket that takes nothing can't be told: it is closed, and its cells come back with that. */
static void yield_output(struct reactor *reactor, enum cell_class class)
{
    const uint32_t reserve = output_reserve(reactor, class);
    const struct cell_claim claim = {
        .share = capacity_of(&reactor->cells, class) / USER_SHARE,
        .over_before_s = reactor->now_s, /* what was put into them within this second may leave */
        .before_s = held_long(reactor),
    };

    for (uint32_t n = cells_free(&reactor->cells, class); n < reserve; n++) {
        const uint32_t slot = cells_find_holder(&reactor->cells, class, &claim);

        if (slot == CELL_HOLDER_NONE) {
            return;
        }

        struct conn *conn = reactor_conn(reactor, slot);

        link_disown_output(&reactor->pools, &conn->link);
        if (conn->state != CONN_CLOSING) {
            stat_add(&reactor->stats.yields_output, 1);
            conn->error = CODE_STALLED;
            reactor_kill(reactor, slot);
        }
        reactor->yield_due_ns = reactor->now_ns + YIELD_NS;
    }
}

void reactor_yield_cells(struct reactor *reactor)
{
    const bool output_may_yield = reactor->now_ns >= reactor->yield_due_ns;

    for (enum cell_class class = CELL_SMALL; class < CELL_CLASSES; class ++) {
        if (input_is_short(reactor, class)) {
            yield_input(reactor, class);
        }
        if (output_may_yield &&
            cells_free(&reactor->cells, class) < output_reserve(reactor, class)) {
            yield_output(reactor, class);
        }
    }
}

/* ---- who waits for a cell */

void reactor_release_cellless(struct reactor *reactor)
{
    const bool is_short = input_is_short(reactor, CELL_SMALL) ||
                          input_is_short(reactor, CELL_MEDIUM) ||
                          input_is_short(reactor, CELL_LARGE);
    uint32_t n = reactor->cellless.count;

    /* In vain, most of them: so few a turn. The turn of each comes. */
    n = is_short && n > CELLLESS_RETRIES ? CELLLESS_RETRIES : n;
    for (; n > 0; n--) {
        const uint32_t slot = slot_queue_take(&reactor->cellless);
        struct conn *conn = reactor_conn(reactor, slot);

        conn->flags &= (uint16_t)~CONN_CELLLESS;
        if (conn->state <= CONN_LIVE) {
            conn->flags &= (uint16_t)~CONN_BLOCKED;
        }
        reactor_run_again_later(reactor, slot);
    }
}
