/*
 * config_table: the table of config.h as data, for what reads and prints it.
 *
 * Owner    Constant.
 * Thread   Any.
 * Errors   None.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

#include "core/server/config.h"

#define CONFIG_KEYS_MAX 64

enum config_type {
    CONFIG_NUMBER,
    CONFIG_TEXT,
    CONFIG_FLAG,
};

struct config_key {
    const char *name;
    const char *unit;
    const char *help;
    const char *text; /* default */
    uint64_t number;  /* default */
    uint64_t min;
    uint64_t max;
    uint32_t offset; /* in struct config */
    enum config_type type;
    bool flag; /* default */
};

static const struct config_key config_keys[] = {
#define CONFIG_NUMBER_ROW(key, unit_, fallback, min_, max_, help_)                                 \
    { .name = #key,                                                                                \
      .unit = (unit_),                                                                             \
      .help = (help_),                                                                             \
      .number = (fallback),                                                                        \
      .min = (min_),                                                                               \
      .max = (max_),                                                                               \
      .offset = offsetof(struct config, key),                                                      \
      .type = CONFIG_NUMBER },
#define CONFIG_TEXT_ROW(key, fallback, help_)                                                      \
    { .name = #key,                                                                                \
      .unit = "",                                                                                  \
      .help = (help_),                                                                             \
      .text = (fallback),                                                                          \
      .offset = offsetof(struct config, key),                                                      \
      .type = CONFIG_TEXT },
#define CONFIG_FLAG_ROW(key, fallback, help_)                                                      \
    { .name = #key,                                                                                \
      .unit = "",                                                                                  \
      .help = (help_),                                                                             \
      .flag = (fallback),                                                                          \
      .offset = offsetof(struct config, key),                                                      \
      .type = CONFIG_FLAG },
    CONFIG_KEYS(CONFIG_NUMBER_ROW, CONFIG_TEXT_ROW, CONFIG_FLAG_ROW)
#undef CONFIG_NUMBER_ROW
#undef CONFIG_TEXT_ROW
#undef CONFIG_FLAG_ROW
};
static const size_t config_key_count = sizeof config_keys / sizeof config_keys[0];

static inline uint64_t *config_number(struct config *config, const struct config_key *key)
{
    return (uint64_t *)(void *)((char *)config + key->offset);
}

static inline char *config_text(struct config *config, const struct config_key *key)
{
    return (char *)config + key->offset;
}

static inline bool *config_flag(struct config *config, const struct config_key *key)
{
    return (bool *)(void *)((char *)config + key->offset);
}

static inline const uint64_t *config_number_of(const struct config *config,
                                               const struct config_key *key)
{
    return (const uint64_t *)(const void *)((const char *)config + key->offset);
}

static inline const char *config_text_of(const struct config *config, const struct config_key *key)
{
    return (const char *)config + key->offset;
}

static inline const bool *config_flag_of(const struct config *config, const struct config_key *key)
{
    return (const bool *)(const void *)((const char *)config + key->offset);
}
