#include "core/engine/emit.h"

#include <stdlib.h>

bool emit_open(struct emit *emit, size_t arena_bytes)
{
    HF_ASSERT(arena_bytes >= EMIT_CALL_BYTES);
    *emit = (struct emit){ .arena_bytes = arena_bytes };
    emit->effects = calloc(EMIT_EFFECTS, sizeof *emit->effects);
    emit->arena = malloc(arena_bytes);
    return emit->effects != NULL && emit->arena != NULL;
}

void emit_close(struct emit *emit)
{
    free(emit->effects);
    free(emit->arena);
    emit->effects = NULL;
    emit->arena = NULL;
}

void emit_note(struct emit *emit, enum note_kind kind, struct user_id user, struct device_id device)
{
    struct effect *effect = emit_add(emit, EFFECT_NOTE);

    effect->note.kind = kind;
    effect->note.user = user;
    effect->note.device = device;
}
