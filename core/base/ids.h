/*
 * ids: the names of users, devices, conversations, messages and partitions, each a type of its own
 * so that one can't be passed as another.
 *
 * Thread   Any. Pure.
 * Source   The words of docs/architecture.md.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* 64 bits, given by the operator's identity service; 0 and the top bit are refused. */
struct user_id {
    uint64_t value;
};

/* One client of a user; never used again for another. 0 is refused. */
struct device_id {
    uint32_t value;
};

/* A peer user's id, or a group's (top bit set). */
struct conversation_id {
    uint64_t value;
};

/* 41 bits of ms since 2020-01-01, 14 of partition, 9 of count: unique, rising per partition. */
struct message_id {
    uint64_t value;
};

/* mix(user or group id) mod 16,384: the unit of placement, for ever. */
struct partition_id {
    uint16_t value;
};

#define PARTITION_COUNT     16384
#define ID_GROUP_BIT        (UINT64_C(1) << 63)
#define MESSAGE_ID_EPOCH_MS UINT64_C(1577836800000) /* 2020-01-01T00:00:00Z */
#define MESSAGE_COUNT_BITS  9
#define PARTITION_BITS      14

/* The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). On disk for ever: never change. */
static inline uint64_t id_mix(uint64_t value)
{
    value ^= value >> 30;
    value *= UINT64_C(0xbf58476d1ce4e5b9);
    value ^= value >> 27;
    value *= UINT64_C(0x94d049bb133111eb);
    value ^= value >> 31;
    return value;
}

static inline struct partition_id partition_of(uint64_t user_or_group)
{
    return (struct partition_id){ (uint16_t)(id_mix(user_or_group) % PARTITION_COUNT) };
}

static inline bool user_id_valid(struct user_id user)
{
    return user.value != 0 && (user.value & ID_GROUP_BIT) == 0;
}

static inline bool conversation_is_group(struct conversation_id conversation)
{
    return (conversation.value & ID_GROUP_BIT) != 0;
}

/* When the message was made, by its home's clock (an id whose count overflowed is a little late). */
static inline uint64_t message_id_unix_ms(struct message_id id)
{
    return (id.value >> (PARTITION_BITS + MESSAGE_COUNT_BITS)) + MESSAGE_ID_EPOCH_MS;
}

/*
 * The next id of a partition: time never goes back, and a count that overflows takes the next
 * millisecond, so ids rise whatever the clock does.
 */
static inline struct message_id message_id_next(struct message_id last,
                                                struct partition_id partition, uint64_t now_unix_ms)
{
    const unsigned time_shift = PARTITION_BITS + MESSAGE_COUNT_BITS;
    const uint64_t count_max = (UINT64_C(1) << MESSAGE_COUNT_BITS) - 1;
    const uint64_t last_time = last.value >> time_shift;
    uint64_t time = now_unix_ms > MESSAGE_ID_EPOCH_MS ? now_unix_ms - MESSAGE_ID_EPOCH_MS : 0;
    uint64_t count = 0;

    if (time <= last_time && last.value != 0) {
        time = last_time;
        count = (last.value & count_max) + 1;
        if (count > count_max) {
            time++;
            count = 0;
        }
    }
    return (struct message_id){ time << time_shift |
                                (uint64_t)partition.value << MESSAGE_COUNT_BITS | count };
}
