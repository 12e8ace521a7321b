#include "loadgen/schedule.h"

#include "core/base/check.h"

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    while (b != 0) {
        const uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

void schedule_init(struct schedule *schedule, double rate_per_s, uint32_t senders,
                   uint64_t start_ns, uint64_t count_max, uint64_t late_ns)
{
    HF_ASSERT(rate_per_s > 0 && senders > 0);
    *schedule = (struct schedule){
        .start_ns = start_ns,
        .count_max = count_max,
        .interval_ns = 1e9 / rate_per_s,
        .senders = senders,
        .late_ns = late_ns,
    };

    /* The golden section spreads neighbours in time over the whole range of senders. */
    schedule->stride_ = (uint32_t)((double)senders * 0.6180339887498949);
    if (schedule->stride_ == 0) {
        schedule->stride_ = 1;
    }
    while (common_divisor(senders, schedule->stride_) != 1) {
        schedule->stride_++;
    }
}

uint64_t schedule_next_ns(const struct schedule *schedule)
{
    if (schedule->count >= schedule->count_max) {
        return UINT64_MAX;
    }
    /* From the count each time: rounding errors don't add up. */
    return schedule->start_ns + (uint64_t)((double)schedule->count * schedule->interval_ns);
}

bool schedule_take(struct schedule *schedule, uint64_t now_ns, uint32_t *sender,
                   uint64_t *intended_ns)
{
    const uint64_t due_ns = schedule_next_ns(schedule);

    if (due_ns > now_ns) {
        return false;
    }

    const uint64_t late_ns = now_ns - due_ns;

    if (late_ns > schedule->late_ns) {
        schedule->late_count++;
    }
    if (late_ns > schedule->late_max_ns) {
        schedule->late_max_ns = late_ns;
    }
    *intended_ns = due_ns;
    *sender = schedule->sender_;
    schedule->sender_ =
        (uint32_t)(((uint64_t)schedule->sender_ + schedule->stride_) % schedule->senders);
    schedule->count++;
    return true;
}
