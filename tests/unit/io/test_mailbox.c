#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/base/error.h"
#include "core/io/clock.h"
#include "core/io/mailbox.h"
#include "tests/unit/io/random.h"

struct message {
    uint64_t number;
    uint64_t echo; /* of number: a torn message would differ */
    uint8_t filling[48];
};

static void open_mailbox(struct mailbox *mailbox, uint32_t capacity, struct bell *bell)
{
    struct hf_error error;

    if (!mailbox_open(mailbox, sizeof(struct message), capacity, bell, &error)) {
        fail_msg("%s", error.text);
    }
}

static void full_mailbox_refuses_and_takes_again_once_there_is_room(void **state)
{
    (void)state;
    struct mailbox mailbox;
    struct message message = { 0 };

    open_mailbox(&mailbox, 4, NULL);
    for (message.number = 0; message.number < 4; message.number++) {
        assert_true(mailbox_give(&mailbox, &message));
    }
    assert_false(mailbox_give(&mailbox, &message));
    assert_int_equal(mailbox.refused, 1);
    assert_int_equal(mailbox_room(&mailbox), 0);
    mailbox_send(&mailbox);
    assert_int_equal(((const struct message *)mailbox_take(&mailbox))->number, 0);
    assert_false(mailbox_give(&mailbox, &message)); /* that message is still being looked at */
    assert_int_equal(((const struct message *)mailbox_take(&mailbox))->number, 1);
    assert_true(mailbox_give(&mailbox, &message));
    assert_false(mailbox_give(&mailbox, &message));
    mailbox_close(&mailbox);
}

static void waiting_messages_are_looked_at_and_changed_before_their_turn(void **state)
{
    (void)state;
    struct mailbox mailbox;
    struct message message = { 0 };

    open_mailbox(&mailbox, 4, NULL);
    assert_null(mailbox_look(&mailbox, 0));
    for (message.number = 0; message.number < 3; message.number++) {
        assert_true(mailbox_give(&mailbox, &message));
    }
    assert_null(mailbox_look(&mailbox, 0)); /* not sent yet */
    mailbox_send(&mailbox);
    assert_int_equal(((const struct message *)mailbox_take(&mailbox))->number, 0);
    assert_int_equal(((const struct message *)mailbox_look(&mailbox, 0))->number, 1);
    ((struct message *)mailbox_look(&mailbox, 1))->number = 77;
    assert_null(mailbox_look(&mailbox, 2));
    assert_int_equal(((const struct message *)mailbox_take(&mailbox))->number, 1);
    assert_int_equal(((const struct message *)mailbox_take(&mailbox))->number, 77);
    assert_null(mailbox_take(&mailbox));
    mailbox_close(&mailbox);
}

static void messages_given_are_seen_only_once_sent(void **state)
{
    (void)state;
    struct mailbox mailbox;
    struct message message = { .number = 7 };

    open_mailbox(&mailbox, 4, NULL);
    assert_true(mailbox_give(&mailbox, &message));
    assert_true(mailbox_empty(&mailbox));
    assert_null(mailbox_take(&mailbox));
    mailbox_send(&mailbox);
    assert_false(mailbox_empty(&mailbox));
    assert_int_equal(((const struct message *)mailbox_take(&mailbox))->number, 7);
    assert_true(mailbox_empty(&mailbox));
    assert_null(mailbox_take(&mailbox));
    mailbox_close(&mailbox);
}

static bool bell_rang(const struct bell *bell)
{
    uint64_t count;
    return read(bell->fd, &count, sizeof count) == (ssize_t)sizeof count;
}

static void send_rings_only_for_a_sleeper_and_once(void **state)
{
    (void)state;
    struct bell bell;
    struct mailbox mailboxes[2];
    struct message message = { 0 };
    struct hf_error error;

    assert_true(bell_open(&bell, &error));
    open_mailbox(&mailboxes[0], 8, &bell);
    open_mailbox(&mailboxes[1], 8, &bell);

    assert_true(mailbox_give(&mailboxes[0], &message));
    mailbox_send(&mailboxes[0]);
    assert_false(bell_rang(&bell)); /* awake */

    bell_prepare(&bell);
    mailbox_send(&mailboxes[0]); /* nothing new */
    assert_false(bell_rang(&bell));
    for (int i = 0; i < 2; i++) {
        assert_true(mailbox_give(&mailboxes[i], &message));
        mailbox_send(&mailboxes[i]);
        assert_int_equal(bell_rang(&bell), i == 0); /* the second finds it woken */
    }
    bell_prepare(&bell);
    bell_cancel(&bell);
    assert_true(mailbox_give(&mailboxes[0], &message));
    mailbox_send(&mailboxes[0]);
    assert_false(bell_rang(&bell));
    bell_ring(&bell);
    assert_true(bell_rang(&bell));
    mailbox_close(&mailboxes[0]);
    mailbox_close(&mailboxes[1]);
    bell_close(&bell);
}

/* Two producers, one consumer that sleeps whenever it finds nothing. */
enum {
    PRODUCERS = 2,
    MESSAGES = 200000,
    WAKE_TIMEOUT_MS = 10000, /* reached only by a lost wake-up */
};

struct producer {
    struct mailbox mailbox;
    uint64_t random;
};

static void *produce(void *argument)
{
    struct producer *producer = argument;
    struct message message = { 0 };

    while (message.number < MESSAGES) {
        uint64_t batch = 1 + random_below(&producer->random, 8);

        while (batch-- > 0 && message.number < MESSAGES) {
            message.echo = message.number;
            memset(message.filling, (int)(message.number & 0xff), sizeof message.filling);
            if (!mailbox_give(&producer->mailbox, &message)) {
                mailbox_send(&producer->mailbox);
                (void)sched_yield();
                continue;
            }
            message.number++;
        }
        mailbox_send(&producer->mailbox);
        if (random_below(&producer->random, 4) == 0) {
            (void)sched_yield(); /* let the consumer run dry and sleep */
        }
    }
    mailbox_send(&producer->mailbox);
    return NULL;
}

static uint64_t consume_all(struct producer *producers, uint64_t *next)
{
    uint64_t taken = 0;

    for (int i = 0; i < PRODUCERS; i++) {
        const struct message *message;

        while ((message = mailbox_take(&producers[i].mailbox)) != NULL) {
            HF_ASSERT(message->number == next[i] && message->echo == next[i]);
            HF_ASSERT(message->filling[47] == (uint8_t)next[i]);
            next[i]++;
            taken++;
        }
    }
    return taken;
}

static void no_message_and_no_wake_up_is_lost_between_threads(void **state)
{
    (void)state;
    static struct producer producers[PRODUCERS];
    pthread_t threads[PRODUCERS];
    uint64_t next[PRODUCERS] = { 0 };
    uint64_t taken = 0;
    uint64_t slept = 0;
    struct bell bell;
    struct hf_error error;

    assert_true(bell_open(&bell, &error));
    for (int i = 0; i < PRODUCERS; i++) {
        open_mailbox(&producers[i].mailbox, 64, &bell);
        producers[i].random = (uint64_t)i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
    while (taken < (uint64_t)PRODUCERS * MESSAGES) {
        const uint64_t found = consume_all(producers, next);

        taken += found;
        if (found > 0) {
            continue;
        }
        bell_prepare(&bell);
        if (mailbox_empty(&producers[0].mailbox) && mailbox_empty(&producers[1].mailbox)) {
            struct pollfd wait = { .fd = bell.fd, .events = POLLIN };
            slept++;
            if (poll(&wait, 1, WAKE_TIMEOUT_MS) != 1) {
                fail_msg("a wake-up was lost after %llu messages", (unsigned long long)taken);
            }
            assert_true(bell_rang(&bell));
        }
        bell_cancel(&bell);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        mailbox_close(&producers[i].mailbox);
    }
    bell_close(&bell);
    print_message("slept %llu times for %llu messages\n", (unsigned long long)slept,
                  (unsigned long long)taken);
    assert_true(slept > 0);
}

/*
 * Store, then load, on both sides at the same instant: what processors reorder first. Without
 * sequential consistency a few of these rounds end with a sleeper that nobody woke.
 */
struct duel {
    struct bell bell;
    struct mailbox mailbox;
    _Atomic uint32_t round; /* release by the consumer, acquire by the producer */
    _Atomic uint32_t done;  /* the other way round */
};

#define DUELS_MAX    200000U
#define DUELS_END    UINT32_MAX
#define DUELS_MAX_NS (2 * CLOCK_NS_PER_S) /* a loaded machine does fewer */

static uint32_t spin_while(_Atomic uint32_t *value, uint32_t old)
{
    uint32_t now;

    for (uint32_t i = 1; (now = atomic_load_explicit(value, memory_order_acquire)) == old; i++) {
        if (i % 4096 == 0) {
            (void)sched_yield(); /* on a machine with one free CPU */
        }
    }
    return now;
}

static void *duel_produce(void *argument)
{
    struct duel *duel = argument;
    const struct message message = { 0 };

    uint32_t round = 0;

    while ((round = spin_while(&duel->round, round)) != DUELS_END) {
        HF_ASSERT(mailbox_give(&duel->mailbox, &message));
        mailbox_send(&duel->mailbox);
        atomic_store_explicit(&duel->done, round, memory_order_release);
    }
    return NULL;
}

static void sleeper_and_sender_that_meet_never_both_miss_each_other(void **state)
{
    (void)state;
    static struct duel duel;
    uint64_t random = 5;
    uint32_t slept = 0;
    uint32_t round = 0;
    const uint64_t start_ns = clock_now_ns();
    pthread_t thread;
    struct hf_error error;

    assert_true(bell_open(&duel.bell, &error));
    open_mailbox(&duel.mailbox, 4, &duel.bell);
    assert_int_equal(pthread_create(&thread, NULL, duel_produce, &duel), 0);
    while (round < DUELS_MAX && clock_now_ns() - start_ns < DUELS_MAX_NS) {
        const uint64_t spins = random_below(&random, 600);

        round++;
        atomic_store_explicit(&duel.round, round, memory_order_release);
        for (volatile uint64_t spin = spins; spin > 0; spin--) {
        }
        bell_prepare(&duel.bell);
        const bool empty = mailbox_empty(&duel.mailbox);
        (void)spin_while(&duel.done, round - 1);
        const bool rang = bell_rang(&duel.bell);
        bell_cancel(&duel.bell);

        assert_true(!empty || rang);
        slept += empty;
        assert_non_null(mailbox_take(&duel.mailbox));
        assert_null(mailbox_take(&duel.mailbox));
    }
    atomic_store_explicit(&duel.round, DUELS_END, memory_order_release);
    assert_int_equal(pthread_join(thread, NULL), 0);
    mailbox_close(&duel.mailbox);
    bell_close(&duel.bell);
    print_message("slept in %u of %u rounds\n", slept, round);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_mailbox_refuses_and_takes_again_once_there_is_room),
        cmocka_unit_test(waiting_messages_are_looked_at_and_changed_before_their_turn),
        cmocka_unit_test(messages_given_are_seen_only_once_sent),
        cmocka_unit_test(send_rings_only_for_a_sleeper_and_once),
        cmocka_unit_test(sleeper_and_sender_that_meet_never_both_miss_each_other),
        cmocka_unit_test(no_message_and_no_wake_up_is_lost_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
