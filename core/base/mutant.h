/*
 * mutant: deliberate bugs, one of which the simulator's build `sim_mutant` plants at run time, to
 * see that it finds it. Each breaks one rule of docs/architecture.md.
 *
 * Use      `if (HF_MUTANT(NAME))` where the code does it wrong. Elsewhere that is the constant
 *          false: no build but sim_mutant (which defines HF_MUTANTS) holds any of it, and no server
 *          but one that is built for a test with one of them for good (HF_MUTANT_PLANTED).
 * Owner    hf_mutant_planted is the simulator's, set before a run.
 * Thread   Any, once it is set.
 * Errors   None.
 */
#pragma once

#include <stdbool.h>

/* name, the rule that it breaks */
#define HF_MUTANT_LIST(X)                                                                          \
    X(PUSH_BEFORE_DURABLE, "nothing leaves before what it tells of is durable")                    \
    X(WELCOME_BEFORE_DURABLE, "HELLO_OK waits for the user's last append")                         \
    X(REPEAT_BEFORE_DURABLE, "a repeat is answered when what it repeats is durable")               \
    X(SEND_AFTER_FENCE, "the older socket's SENDs are dropped at HELLO")                           \
    X(HELLO_COUNTER_TOO_LOW, "HELLO_OK's last counter is of the user's last append")               \
    X(CURSOR_SKIPS_ONE, "after a HELLO comes the entry after its cursor")                          \
    X(CURSOR_BEYOND_HEAD_RESUMES, "a cursor beyond the head gets RESET")                           \
    X(REJECT_KEEPS_COUNTER, "a permanent refusal consumes the counter")                            \
    X(RETRY_CONSUMES_COUNTER, "a temporary refusal consumes nothing")                              \
    X(ORDER_EXPECTS_ONE_MORE, "ORDER says which counter is expected")                              \
    X(CN_COUNTS_OWN, "cn counts the messages of others")                                           \
    X(FOREIGN_ANCHOR_ACCEPTED, "a page's anchor is an entry of that conversation")                 \
    X(SHORT_CUT_OVERTAKES, "no short cut while something earlier is outstanding")                  \
    X(DEDUPE_OUTSIDE_BATCH, "a head's origin changes with the entry that it is of")                \
    X(AFTER_LEFT_OUT, "a stream record names its predecessor that hasn't ended")                   \
    X(AFTER_NOT_REFRESHED, "a record is sent again with a fresh `after`")                          \
    X(AFTER_PASSES_UNDURABLE_END, "a frame waits for the ends that its `after` passes over")       \
    X(BEHIND_AS_REFUSED, "what is BEHIND is sent again")                                           \
    X(OLD_LINK_OUTCOME_BELIEVED, "outcomes count only on the link in use now")                     \
    X(OLD_LINK_READ, "nothing is read from a link once a newer one was seen")                      \
    X(GAP_UNNOTICED, "a gap ends the link")                                                        \
    X(ACK_BEFORE_DURABLE, "a stream is acknowledged when the entry is durable")                    \
    X(LOAD_WITHOUT_LSN_CHECK, "a load whose snapshot is too old is asked again")                   \
    X(JOURNAL_READ_UNCHECKED, "a read of the journal checks LSN, user and seq")                    \
    X(DIRTY_HEAD_EVICTED, "a head stays in memory until its last change is flushed")               \
    X(DIRTY_USER_EVICTED, "a user stays in memory until its last change is flushed")               \
    X(EXPIRE_ONE_TOO_MANY, "no entry goes before its age")                                         \
    X(RETENTION_TAKES_UNSENT, "retention spares what a stream record needs")                       \
    X(FLUSH_FORGETS_OUTCOMES, "a flush merges a device's outcomes with those before")              \
    X(OUT_NOT_KEPT, "a stream record that `applied` passes unended goes to `out`")                 \
    X(CHECKPOINT_ONE_BLOCK_LATE, "every 64th n has a key (conversation, n / 64)")                  \
    X(BODY_COUNTED_TWICE, "replay counts no body reference again")                                 \
    X(BODY_DROPPED_WHILE_HELD, "a body goes with the last that names it")                          \
    X(APPLIED_ONE_BLOCK_TOO_FAR, "`applied` is the end of what was applied")                       \
    X(LAST_ID_NOT_KEPT, "the last message id is recovered at start")                               \
    X(FLUSH_WITHOUT_SYNC, "a segment goes when a synced `applied` is beyond it")                   \
    X(SYNC_ONLY_IF_NEW, "what recovery read is synced before anything leaves")                     \
    X(TRIM_HALF_FLUSHED, "a segment goes when all of it is applied")                               \
    X(INDEX_DROPPED_AT_ROTATE, "the index keeps an entry until it is flushed")                     \
    X(STALE_TAIL_ACCEPTED, "a block of an earlier start is none of this journal's")                \
    X(TORN_BATCH_TAKEN, "a batch is atomic")                                                       \
    X(DAMAGE_TAKEN_FOR_TAIL, "a bad batch before a later one is damage")                           \
    X(RECOVER_IGNORES_MAP, "a journal is applied to the volumes of its own map")                   \
    X(START_BELOW_APPLIED, "a new journal starts above every `applied`")

enum hf_mutant {
    HF_MUTANT_NONE = 0,
#define HF_MUTANT_ENUMERATOR(name, rule) HF_MUTANT_##name,
    HF_MUTANT_LIST(HF_MUTANT_ENUMERATOR)
#undef HF_MUTANT_ENUMERATOR
};

#ifdef HF_MUTANT_PLANTED
#define HF_MUTANT(name) (HF_MUTANT_##name == HF_MUTANT_PLANTED)
#elif defined HF_MUTANTS
extern enum hf_mutant hf_mutant_planted;
#define HF_MUTANT(name) __builtin_expect(hf_mutant_planted == HF_MUTANT_##name, 0)
#else
#define HF_MUTANT(name) ((void)HF_MUTANT_##name, false)
#endif
