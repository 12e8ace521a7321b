/* Every oracle fires: a simulator that can't fail proves nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sim/fail.h"
#include "tests/sim/ledger.h"

#define ALICE  0x10
#define BOB    0x20
#define EPOCH  7
#define DEVICE 1

struct world {
    struct hazards hazards;
    struct ledger ledger;
};

static uint32_t make(struct ledger *ledger)
{
    struct sim_message *message = ledger_create(ledger, ALICE, DEVICE, BOB);

    message->body_bytes = 8;
    message->nonce[0] = (uint8_t)message->index;
    return message->index;
}

static struct telling sent(struct ledger *ledger, uint32_t index, uint64_t n)
{
    const struct sim_message *message = ledger_message(ledger, index);
    struct telling telling = {
        .message = index,
        .id = 100 + index,
        .conversation = BOB,
        .sender = ALICE,
        .device = DEVICE,
        .counter = index,
        .flags = 1,
        .prev = n - 1,
        .n = n,
    };

    memcpy(telling.nonce, message->nonce, sizeof telling.nonce);
    return telling;
}

static struct telling received(uint32_t index, uint64_t n)
{
    return (struct telling){
        .message = index,
        .id = 100 + index,
        .conversation = ALICE,
        .sender = ALICE,
        .device = DEVICE,
        .prev = n - 1,
        .n = n,
        .cn = n,
    };
}

/* One message, answered and in both logs. */
static uint32_t deliver(struct ledger *ledger, uint64_t seq)
{
    const uint32_t index = make(ledger);
    const struct telling in_alice = sent(ledger, index, seq);
    const struct telling in_bob = received(index, seq);

    ledger_tell(ledger, ALICE, EPOCH, seq, &in_alice, TELLING_SEEN);
    ledger_tell(ledger, BOB, EPOCH, seq, &in_bob, TELLING_SEEN);
    ledger_tell_accepted(ledger, index, in_alice.id, seq, EPOCH);
    return index;
}

static void good_run(struct ledger *ledger)
{
    for (uint64_t seq = 1; seq <= 3; seq++) {
        (void)deliver(ledger, seq);
    }
    ledger_check_recovered(ledger, ALICE, EPOCH, 3, 1);
    ledger_check_end(ledger);
}

static void other_message_at_a_known_place(struct ledger *ledger)
{
    (void)deliver(ledger, 1);

    const struct telling other = sent(ledger, make(ledger), 1);

    ledger_tell(ledger, ALICE, EPOCH, 1, &other, TELLING_STORED);
}

static void message_at_two_places(struct ledger *ledger)
{
    const struct telling again = sent(ledger, deliver(ledger, 1), 2);

    ledger_tell(ledger, ALICE, EPOCH, 2, &again, TELLING_SEEN);
}

static void message_twice_in_the_receivers_log(struct ledger *ledger)
{
    const struct telling again = received(deliver(ledger, 1), 2);

    ledger_tell(ledger, BOB, EPOCH, 2, &again, TELLING_SEEN);
    ledger_check_end(ledger);
}

static void accepted_message_that_never_arrived(struct ledger *ledger)
{
    const uint32_t index = make(ledger);
    const struct telling telling = sent(ledger, index, 1);

    ledger_tell(ledger, ALICE, EPOCH, 1, &telling, TELLING_SEEN);
    ledger_tell_accepted(ledger, index, telling.id, 1, EPOCH);
    ledger_check_end(ledger);
}

static void message_that_was_never_answered(struct ledger *ledger)
{
    (void)make(ledger);
    ledger_check_end(ledger);
}

static void refused_for_ever_without_a_reason(struct ledger *ledger)
{
    ledger_tell_rejected(ledger, make(ledger));
}

static void arrived_and_refused(struct ledger *ledger)
{
    const uint32_t index = deliver(ledger, 1);
    const struct telling refused = {
        .refused = true,
        .message = index,
        .id = 100 + index,
        .conversation = BOB,
        .code = 768,
        .ref_seq = 1,
    };

    ledger_tell(ledger, ALICE, EPOCH, 2, &refused, TELLING_SEEN);
    ledger_check_end(ledger);
}

static void gap_in_a_log(struct ledger *ledger)
{
    (void)deliver(ledger, 1);

    const uint32_t index = make(ledger);
    struct telling telling = sent(ledger, index, 2);

    telling.prev = 1;
    ledger_tell(ledger, ALICE, EPOCH, 3, &telling, TELLING_SEEN);
    ledger_check_end(ledger);
}

static void later_message_before_an_earlier_one(struct ledger *ledger)
{
    const uint32_t first = make(ledger);
    const uint32_t second = make(ledger);
    const struct telling a = sent(ledger, second, 1);
    const struct telling b = sent(ledger, first, 2);

    ledger_tell(ledger, ALICE, EPOCH, 1, &a, TELLING_SEEN);
    ledger_tell(ledger, ALICE, EPOCH, 2, &b, TELLING_SEEN);
    ledger_tell_accepted(ledger, second, a.id, 1, EPOCH);
    ledger_tell_accepted(ledger, first, b.id, 2, EPOCH);
    ledger_check_end(ledger);
}

static void unread_count_that_does_not_add_up(struct ledger *ledger)
{
    (void)deliver(ledger, 1);

    struct telling telling = received(make(ledger), 2);

    telling.cn = 1;
    ledger_tell(ledger, BOB, EPOCH, 2, &telling, TELLING_SEEN);
    ledger_check_end(ledger);
}

static void head_that_a_crash_took_back(struct ledger *ledger)
{
    (void)deliver(ledger, 1);
    (void)deliver(ledger, 2);
    ledger_check_recovered(ledger, ALICE, EPOCH, 1, 1);
}

static void user_that_a_crash_took_away(struct ledger *ledger)
{
    (void)deliver(ledger, 1);
    ledger_check_recovered(ledger, ALICE, 0, 0, 0);
}

static void epoch_that_changed(struct ledger *ledger)
{
    (void)deliver(ledger, 1);
    ledger_tell_head(ledger, ALICE, EPOCH + 1, 1, 1, 1, 1);
}

static void head_below_what_was_known_when_it_was_asked_for(struct ledger *ledger)
{
    ledger_tell_head(ledger, ALICE, EPOCH, 4, 1, 5, 1);
}

static void message_in_a_strangers_log(struct ledger *ledger)
{
    struct telling telling = received(make(ledger), 1);

    telling.conversation = ALICE;
    ledger_tell(ledger, 0x30, EPOCH, 1, &telling, TELLING_SEEN);
}

static void body_that_changed(struct ledger *ledger)
{
    const struct sim_message *message = ledger_message(ledger, make(ledger));
    uint8_t body[8];

    ledger_body(message, body);
    body[7] ^= 1;
    (void)ledger_message_of_body(ledger, body, sizeof body);
}

/* What the process of a run would end with. */
static int exit_code_of(void (*run)(struct ledger *ledger))
{
    int status = 0;

    (void)fflush(stdout);
    (void)fflush(stderr);

    const pid_t pid = fork();

    if (pid == 0) {
        struct world world = { 0 };

        (void)close(STDERR_FILENO);
        ledger_open(&world.ledger, &world.hazards, false);
        run(&world.ledger);
        ledger_close(&world.ledger);
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void clean_run_passes(void **state)
{
    (void)state;
    assert_int_equal(exit_code_of(good_run), 0);
}

static void broken_rule_fails_the_run(void **state)
{
    static const struct {
        const char *name;
        void (*run)(struct ledger *ledger);
    } rules[] = {
        { "other message at a known place", other_message_at_a_known_place },
        { "message at two places", message_at_two_places },
        { "message twice in the receiver's log", message_twice_in_the_receivers_log },
        { "accepted message that never arrived", accepted_message_that_never_arrived },
        { "message that was never answered", message_that_was_never_answered },
        { "refused for ever without a reason", refused_for_ever_without_a_reason },
        { "arrived and refused", arrived_and_refused },
        { "gap in a log", gap_in_a_log },
        { "later message before an earlier one", later_message_before_an_earlier_one },
        { "unread count that doesn't add up", unread_count_that_does_not_add_up },
        { "head that a crash took back", head_that_a_crash_took_back },
        { "user that a crash took away", user_that_a_crash_took_away },
        { "epoch that changed", epoch_that_changed },
        { "head below what was known", head_below_what_was_known_when_it_was_asked_for },
        { "message in a stranger's log", message_in_a_strangers_log },
        { "body that changed", body_that_changed },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (exit_code_of(rules[i].run) != SIM_EXIT_FAILED) {
            fail_msg("not noticed: %s", rules[i].name);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clean_run_passes),
        cmocka_unit_test(broken_rule_fails_the_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
