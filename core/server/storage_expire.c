/*
 * Retention by age, in the reader thread: when a sweep begins, at what pace it goes, and that what it
 * finds goes to the reactor one at a time, so that it is never ahead of what the engine takes.
 */
#include <limits.h>

#include "core/base/check.h"
#include "core/io/clock.h"
#include "core/server/storage_internal.h"

#define ROWS_A_STEP    64
#define PERIODS_AN_AGE 16
#define PERIOD_NS_MIN  CLOCK_NS_PER_S
#define PERIOD_NS_MAX  (86400 * CLOCK_NS_PER_S)
#define FIRST_NS_MAX   (60 * CLOCK_NS_PER_S) /* after a start, which may come more often */
#define PACE_NS_MIN    CLOCK_NS_PER_MS
#define PACE_NS_MAX    (100 * CLOCK_NS_PER_MS)
#define PACE_NS_FIRST  (5 * CLOCK_NS_PER_MS) /* nothing says yet how long the way is */

static uint64_t age_ms(const struct storage *storage)
{
    return storage->options.config->retention_age_s * 1000;
}

static uint64_t clamp(uint64_t value, uint64_t min, uint64_t max)
{
    return value < min ? min : value > max ? max : value;
}

/* From the beginning of one sweep to that of the next. */
static uint64_t period_ns(const struct storage *storage)
{
    return clamp(age_ms(storage) * CLOCK_NS_PER_MS / PERIODS_AN_AGE, PERIOD_NS_MIN, PERIOD_NS_MAX);
}

void storage_expire_init(struct storage *storage)
{
    storage->expire.due_ns =
        clock_now_ns() + clamp(period_ns(storage), PERIOD_NS_MIN, FIRST_NS_MAX);
    storage->expire.pace_ns = PACE_NS_FIRST;
}

static void begin_sweep(struct storage *storage, uint64_t now_ns)
{
    struct storage_expire *expire = &storage->expire;
    const uint64_t now_unix_ms = clock_unix_ms();
    const uint64_t age = age_ms(storage);

    expire_begin(&expire->sweep, storage->ahead.readers, storage->options.volume_count,
                 now_unix_ms > age ? now_unix_ms - age : 0);
    expire->sweeping = true;
    expire->began_ns = now_ns;
    expire->steps = 0;
}

static void end_sweep(struct storage *storage)
{
    struct storage_expire *expire = &storage->expire;
    const struct mail mail = { .kind = MAIL_SWEPT, .number = expire->sweep.users };
    const uint64_t period = period_ns(storage);

    expire->sweeping = false;
    expire->due_ns = expire->began_ns + period;
    expire->pace_ns = clamp(period / 2 / (expire->steps + 1), PACE_NS_MIN, PACE_NS_MAX);
    if (!post_give(&storage->mail->reader_to_reactor, &mail)) {
        return; /* it is only counted */
    }
}

static void lend(struct storage *storage, bool damaged)
{
    struct storage_expire *expire = &storage->expire;
    struct storage_damage *damage = &expire->expired.damage;
    const struct mail mail = { .kind = MAIL_EXPIRED, .bytes = &expire->expired };

    *damage = (struct storage_damage){ .found = damaged };
    if (damaged) {
        damage->volume = expire->sweep.damaged_volume;
        damage->user = expire->expired.found.user;
        (void)snprintf(damage->row, sizeof damage->row, "%s", expire->sweep.damaged_row);
    }

    const bool given = post_give(&storage->mail->reader_to_reactor, &mail);

    HF_ASSERT(given); /* beside the loads there is room for it */
    expire->lent = true;
}

/* How long until then, rounded up: a sleep that ends early would only be taken up again. */
static int ms_until(uint64_t due_ns, uint64_t now_ns)
{
    const uint64_t wait_ms =
        due_ns > now_ns ? (due_ns - now_ns + CLOCK_NS_PER_MS - 1) / CLOCK_NS_PER_MS : 0;

    return wait_ms < INT_MAX ? (int)wait_ms : INT_MAX;
}

int storage_expire_step(struct storage *storage)
{
    struct storage_expire *expire = &storage->expire;
    const uint64_t now_ns = clock_now_ns();

    if (storage->options.config->retention_age_s == 0 || expire->lent) {
        return -1;
    }
    if (now_ns < expire->due_ns) {
        return ms_until(expire->due_ns, now_ns);
    }
    if (!expire->sweeping) {
        begin_sweep(storage, now_ns);
    }
    expire->steps++;

    const enum expire_status status =
        expire_step(&expire->sweep, ROWS_A_STEP, &expire->expired.found);

    switch (status) {
    case EXPIRE_MORE:
        expire->due_ns = now_ns + expire->pace_ns;
        break;
    case EXPIRE_FOUND:
    case EXPIRE_DAMAGED:
        lend(storage, status == EXPIRE_DAMAGED);
        return -1;
    case EXPIRE_SWEPT:
        end_sweep(storage);
        break;
    case EXPIRE_FAILED:
        expire->due_ns = UINT64_MAX; /* the process stops */
        storage_fail(storage, "retention", expire->sweep.error.text, NULL);
        break;
    }
    return ms_until(expire->due_ns, now_ns);
}
