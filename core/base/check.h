/*
 * check: assertions, for errors of the programmer and nothing else.
 *
 * Use      HF_ASSERT stays on in release: it costs a compare. HF_ASSERT_SLOW (walks, sums) is on
 *          when HF_SLOW_CHECKS is defined: debug builds, the simulator, CI. Anything that comes
 *          from a socket, a file, the configuration or a peer is checked and refused, never
 *          asserted.
 * Thread   Any.
 * Errors   A failed assertion prints file, line and expression on standard error and aborts: a
 *          server whose rules are broken must not go on to promise durability.
 */
#pragma once

_Noreturn void hf_check_failed(const char *file, int line, const char *expression);

#define HF_ASSERT(expression)                                                                      \
    (__builtin_expect(!(expression), 0) ? hf_check_failed(__FILE__, __LINE__, #expression)         \
                                        : (void)0)

#ifdef HF_SLOW_CHECKS
#define HF_ASSERT_SLOW(expression) HF_ASSERT(expression)
#else
#define HF_ASSERT_SLOW(expression) ((void)sizeof(!(expression)))
#endif
