/* Checks of GPU kernels against plain loops in double: on the emulator, and the same on a GPU.
 *
 * To add a kernel codegen/gpu/NAME.c, add two files here; CMake finds them (run cmake again):
 *
 *   NAME.cases    the instances, one a line, '#' for comments; after '|' whatever else the check asks for:
 *       embed d_model=40 weight_dtype=1 act=1 | n_tokens=5 vocab=50
 *
 *   check_NAME.c
 *       #include "check.h"
 *       static void check_embed(void)                    // once for every line
 *       {
 *           const int d_model = check_param("d_model"), n_tokens = check_param("n_tokens");
 *           float *x = check_buffer(4 * n_tokens * d_model);
 *           ...
 *           CHECK_LAUNCH(n_tokens, 1, 128, 0, x, tokens, weights, scales, n_tokens);
 *           check_rows_f32("x", x, want, n_tokens, d_model, d_model, 0);
 *       }
 *       GPU_CHECKS({ "embed", check_embed })             // { template, function }, ...
 *
 * ninja test_gpu_NAME builds both, `ctest -R gpu/NAME` runs them. By hand:
 *
 *   tests/test_gpu_NAME tests/gpu_kernels [LINE]         (in the build folder; LINE: only this line of NAME.cases)
 *   tests/test_gpu_NAME FOLDER --cuda [LINE]             with libcuda and FOLDER/NAME.ptx (on_gpu.sh packs it)
 *
 * Buffers hold NaNs, end at a page that is no memory, and live to the end of the case. Random numbers
 * depend on the case only. On a GPU every buffer is copied there before a launch and back after it.
 */
#ifndef MOSS_TESTS_GPU_CHECK_H
#define MOSS_TESTS_GPU_CHECK_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- the case ---- */

int check_param(const char *name);              /* of the template, or a value after '|'; must be there */
double check_param_float(const char *name);

/* ---- memory ---- */

/* `len` bytes of NaN, at a multiple of 16. */
void *check_buffer(size_t len);
/* From now on a write to the buffer that starts at p fails. */
void check_freeze(const void *p);
/* The kernel may read this buffer before dependency_wait, because the launch before never writes it. All others are
 * no memory until then, but for check_random_weights'. */
void check_early(const void *p);

/* ---- random input: in (-1, 1); what lies between cols and stride is NaN; frozen ---- */

void check_seed(int n);                         /* for cases that share their numbers */
uint64_t check_random_bits(void);
float check_random(void);
int check_random_below(int n);
float *check_random_f32(int rows, int cols, int stride);
uint16_t *check_random_act(int rows, int cols, int stride, int act);

/* A matrix of layout `device`, [n_experts][n_out][k]: k = n_in rounded up to 64, zeros beyond n_in; early. */
typedef struct {
    void *weights;          /* weight_dtype: 1 bf16, 2 f16, 3 int8 */
    float *scales;          /* q8: [n_experts][n_out], 256-aligned behind the weights; else NULL */
    double *plain;          /* [n_experts][n_out][n_in], times scales */
} CheckWeights;
CheckWeights check_random_weights(int n_experts, int n_out, int n_in, int weight_dtype);

/* `count` doubles of zero for expected values; freed with the case. */
double *check_doubles(size_t count);

double check_act_value(uint16_t value, int act);       /* act: 1 bf16, 2 f16 */
uint16_t check_act_round(double value, int act);       /* nearest, ties to even */

/* ---- launching ---- */

typedef struct { const void *at; size_t len; } CheckArg;
void check_launch(int grid_x, int grid_y, int n_threads, int shared_len, int n_args, const CheckArg *args);
/* Blocks may wait for each other. */
void check_launch_resident(int grid_x, int grid_y, int n_threads, int shared_len, int n_args, const CheckArg *args);

/* Up to 32 arguments, of the types the kernel has: their lengths are checked. NULL for a null pointer. */
#define CHECK_LAUNCH(grid_x, grid_y, n_threads, shared_len, ...)                                        \
    check_launch(grid_x, grid_y, n_threads, shared_len, CHECK_COUNT(__VA_ARGS__),                        \
                 (const CheckArg[]){ CHECK_EACH(CHECK_COUNT(__VA_ARGS__), __VA_ARGS__) })
#define CHECK_LAUNCH_RESIDENT(grid_x, grid_y, n_threads, shared_len, ...)                               \
    check_launch_resident(grid_x, grid_y, n_threads, shared_len, CHECK_COUNT(__VA_ARGS__),               \
                          (const CheckArg[]){ CHECK_EACH(CHECK_COUNT(__VA_ARGS__), __VA_ARGS__) })

/* ---- comparing: the first wrong element is printed; NaN is wrong ---- */

void check_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* |got - want| <= tolerance * max |want| */
void check_rows_f32(const char *what, const float *got, const double *want, int rows, int cols, int stride,
                    double tolerance);
/* The same, and half a unit of the last place of each element for its rounding. */
void check_rows_act(const char *what, const uint16_t *got, const double *want, int rows, int cols, int stride,
                    int act, double tolerance);
void check_ints(const char *what, const int32_t *got, const int32_t *want, size_t count);
void check_bytes(const char *what, const void *got, const void *want, size_t len);
/* Still as check_buffer gave it: nobody wrote there. */
void check_untouched(const char *what, const void *p, size_t len);

/* ---- the table of a file ---- */

typedef struct { const char *template; void (*run)(void); } GpuCheck;
extern const GpuCheck gpu_checks[];
extern const int n_gpu_checks;
#define GPU_CHECKS(...)                             \
    const GpuCheck gpu_checks[] = { __VA_ARGS__ };  \
    const int n_gpu_checks = sizeof gpu_checks / sizeof gpu_checks[0];

/* ---- CHECK_LAUNCH's machinery ---- */

#define CHECK_ARG(a) { (const __typeof__(a)[1]){ a }, sizeof(a) }
#define CHECK_COUNT(...) CHECK_COUNT_(__VA_ARGS__, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, \
                                      16, 15, 14, 13, 12, 11, 10, 9, \
                                      8, 7, 6, 5, 4, 3, 2, 1, 0)
#define CHECK_COUNT_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, A, B, C, D, E, F, count, ...) count
#define CHECK_EACH(n, ...) CHECK_EACH_(n, __VA_ARGS__)
#define CHECK_EACH_(n, ...) CHECK_EACH_##n(__VA_ARGS__)
#define CHECK_EACH_1(a) CHECK_ARG(a)
#define CHECK_EACH_2(a, ...) CHECK_ARG(a), CHECK_EACH_1(__VA_ARGS__)
#define CHECK_EACH_3(a, ...) CHECK_ARG(a), CHECK_EACH_2(__VA_ARGS__)
#define CHECK_EACH_4(a, ...) CHECK_ARG(a), CHECK_EACH_3(__VA_ARGS__)
#define CHECK_EACH_5(a, ...) CHECK_ARG(a), CHECK_EACH_4(__VA_ARGS__)
#define CHECK_EACH_6(a, ...) CHECK_ARG(a), CHECK_EACH_5(__VA_ARGS__)
#define CHECK_EACH_7(a, ...) CHECK_ARG(a), CHECK_EACH_6(__VA_ARGS__)
#define CHECK_EACH_8(a, ...) CHECK_ARG(a), CHECK_EACH_7(__VA_ARGS__)
#define CHECK_EACH_9(a, ...) CHECK_ARG(a), CHECK_EACH_8(__VA_ARGS__)
#define CHECK_EACH_10(a, ...) CHECK_ARG(a), CHECK_EACH_9(__VA_ARGS__)
#define CHECK_EACH_11(a, ...) CHECK_ARG(a), CHECK_EACH_10(__VA_ARGS__)
#define CHECK_EACH_12(a, ...) CHECK_ARG(a), CHECK_EACH_11(__VA_ARGS__)
#define CHECK_EACH_13(a, ...) CHECK_ARG(a), CHECK_EACH_12(__VA_ARGS__)
#define CHECK_EACH_14(a, ...) CHECK_ARG(a), CHECK_EACH_13(__VA_ARGS__)
#define CHECK_EACH_15(a, ...) CHECK_ARG(a), CHECK_EACH_14(__VA_ARGS__)
#define CHECK_EACH_16(a, ...) CHECK_ARG(a), CHECK_EACH_15(__VA_ARGS__)
#define CHECK_EACH_17(a, ...) CHECK_ARG(a), CHECK_EACH_16(__VA_ARGS__)
#define CHECK_EACH_18(a, ...) CHECK_ARG(a), CHECK_EACH_17(__VA_ARGS__)
#define CHECK_EACH_19(a, ...) CHECK_ARG(a), CHECK_EACH_18(__VA_ARGS__)
#define CHECK_EACH_20(a, ...) CHECK_ARG(a), CHECK_EACH_19(__VA_ARGS__)
#define CHECK_EACH_21(a, ...) CHECK_ARG(a), CHECK_EACH_20(__VA_ARGS__)
#define CHECK_EACH_22(a, ...) CHECK_ARG(a), CHECK_EACH_21(__VA_ARGS__)
#define CHECK_EACH_23(a, ...) CHECK_ARG(a), CHECK_EACH_22(__VA_ARGS__)
#define CHECK_EACH_24(a, ...) CHECK_ARG(a), CHECK_EACH_23(__VA_ARGS__)
#define CHECK_EACH_25(a, ...) CHECK_ARG(a), CHECK_EACH_24(__VA_ARGS__)
#define CHECK_EACH_26(a, ...) CHECK_ARG(a), CHECK_EACH_25(__VA_ARGS__)
#define CHECK_EACH_27(a, ...) CHECK_ARG(a), CHECK_EACH_26(__VA_ARGS__)
#define CHECK_EACH_28(a, ...) CHECK_ARG(a), CHECK_EACH_27(__VA_ARGS__)
#define CHECK_EACH_29(a, ...) CHECK_ARG(a), CHECK_EACH_28(__VA_ARGS__)
#define CHECK_EACH_30(a, ...) CHECK_ARG(a), CHECK_EACH_29(__VA_ARGS__)
#define CHECK_EACH_31(a, ...) CHECK_ARG(a), CHECK_EACH_30(__VA_ARGS__)
#define CHECK_EACH_32(a, ...) CHECK_ARG(a), CHECK_EACH_31(__VA_ARGS__)

#endif
