/*
 * thread: where and how urgently a thread runs. Each function is about the calling thread.
 *
 * Thread   Any; call it first thing in the thread that it is about.
 * Errors   A refusal of thread_pin is the operator's to know (a cgroup without that CPU); the rest
 *          are hints and can't fail in a way that matters.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct hf_error;

/* The CPUs that this process may use; at least 1. */
uint32_t thread_cpu_count(void);

/* The nth (from 0) CPU that this process may use, wrapping: containers are given any subset. */
uint32_t thread_nth_cpu(uint32_t nth);

/* Pins to that CPU. */
__attribute__((warn_unused_result)) bool thread_pin(uint32_t cpu, struct hf_error *error);

/*
 * Short turns: when this thread (a reactor) wakes up, what runs on its CPU with longer ones gives way
 * at once instead of ending its turn of some milliseconds. Of kernels from 6.12 on.
 */
void thread_set_urgent(void);

/* SCHED_BATCH and nice: this thread (door, flusher) gives way to the reactors. */
void thread_set_background(int nice_increment);

/* Sleeps so long, or a little longer; a signal may cut it short. */
void thread_rest(uint64_t ns);

/*
 * Between long pieces of work of a background thread: a kernel that preempts lazily lets others run
 * only when a thread enters it, or at the next tick of its clock, milliseconds later.
 */
void thread_give_way(void);

/* As shown by top and perf; cut at 15 bytes. */
void thread_set_name(const char *name);
