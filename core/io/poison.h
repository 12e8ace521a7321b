/*
 * poison: tells AddressSanitizer that bytes mustn't be touched now: they are free, or the kernel
 * owns them. The sanitizer doesn't see what the kernel writes, only that we don't look too early.
 * Without it, nothing.
 */
#pragma once

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define POISON_ACTIVE 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISON_ACTIVE 1
#endif
#endif

#ifdef POISON_ACTIVE
#include <sanitizer/asan_interface.h>
#define POISON(bytes, byte_count)   ASAN_POISON_MEMORY_REGION((bytes), (byte_count))
#define UNPOISON(bytes, byte_count) ASAN_UNPOISON_MEMORY_REGION((bytes), (byte_count))
#else
#define POISON(bytes, byte_count)   ((void)(bytes), (void)(byte_count))
#define UNPOISON(bytes, byte_count) ((void)(bytes), (void)(byte_count))
#endif
