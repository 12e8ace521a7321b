/*
 * send: a SEND: the counter, the nonce, the two entries or the stream record, and the answer.
 *
 * Thread   The engine's only.
 * Errors   Refusals are answers (REJECTED); CONFLICT and STALE end the session.
 * Source   docs/architecture.md, "The life of a message".
 */
#pragma once

#include <stdint.h>

#include "core/engine/engine.h"

enum engine_result send_on_frame(struct engine *engine, uint32_t session,
                                 const struct frame_view *frame);
/* The answer may leave. */
void send_answer(struct engine *engine, uint32_t session, uint64_t counter, uint64_t id,
                 uint64_t seq_or_expected, enum code code);
