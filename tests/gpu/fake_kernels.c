/* Two kernels for the test of the stand-in driver, in the form of host renderings. */
#include "emulate.h"

#define EXPORT __attribute__((visibility("default")))

/* add(float *x): one more for every element, a block of 32 each */
EXPORT const int add_arg_lens[] = { sizeof(float *), 0 };
EXPORT void add_call(void *const *args)
{
    float *x = *(float **)args[0];
    dependency_wait();
    x[block_x() * n_threads() + thread_x()] += 1;
}

/* peek(float *seen, const float *x): x[0] before and after the launch before has ended */
EXPORT const int peek_arg_lens[] = { sizeof(float *), sizeof(const float *), 0 };
EXPORT void peek_call(void *const *args)
{
    float *seen = *(float **)args[0];
    const float *x = *(const float **)args[1];
    const float before = x[0];
    dependency_wait();
    if (thread_x() == 0) {
        seen[0] = before;
        seen[1] = x[0];
    }
}
