/*
 * emit: the effects of a call, in order, and the bytes that they carry.
 *
 * Owner    One per engine.
 * Thread   The engine's only.
 * Memory   A fixed number of effects and one arena, from the start again at each clear. Bytes are
 *          written straight into the arena: reserve, encode, then commit as many as were used.
 * Errors   None: a call begins with at least the room of EMIT_CALL_*, of which it must not use
 *          more; emit_has_room tells a loop when to stop.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/check.h"
#include "core/engine/effects.h"

#define EMIT_EFFECTS      2048
#define EMIT_CALL_EFFECTS 512
#define EMIT_CALL_BYTES   ((size_t)160 * 1024)
/* What one step of a loop may use at most. */
#define EMIT_STEP_EFFECTS 8
#define EMIT_STEP_BYTES   ((size_t)72 * 1024)

struct emit {
    struct effect *effects;
    uint8_t *arena;
    size_t arena_bytes;
    size_t used;
    uint32_t count;
    uint32_t taken;
};

bool emit_open(struct emit *emit, size_t arena_bytes) __attribute__((warn_unused_result));
void emit_close(struct emit *emit);

static inline bool emit_has_room(const struct emit *emit, uint32_t effects, size_t bytes)
{
    return EMIT_EFFECTS - emit->count >= effects && emit->arena_bytes - emit->used >= bytes;
}

static inline bool emit_has_step(const struct emit *emit)
{
    return emit_has_room(emit, EMIT_STEP_EFFECTS, EMIT_STEP_BYTES);
}

/* Where bytes of the next effect may be written; `room` is how many. */
static inline uint8_t *emit_reserve(const struct emit *emit, size_t *room)
{
    *room = emit->arena_bytes - emit->used;
    return emit->arena + emit->used;
}

static inline const uint8_t *emit_commit(struct emit *emit, size_t byte_count)
{
    const uint8_t *bytes = emit->arena + emit->used;

    HF_ASSERT(byte_count <= emit->arena_bytes - emit->used);
    emit->used += byte_count;
    return bytes;
}

/* The fields that the kind has are for the caller to set; the others mean nothing. */
static inline struct effect *emit_add(struct emit *emit, enum effect_kind kind)
{
    HF_ASSERT(emit->count < EMIT_EFFECTS);

    struct effect *effect = &emit->effects[emit->count++];

    effect->kind = kind;
    return effect;
}

void emit_note(struct emit *emit, enum note_kind kind, struct user_id user,
               struct device_id device);
