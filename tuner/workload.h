/* Workload: the arguments of one kernel call, what must come out, and whether it did.
 *
 * Input: the kernel's parameters by name, a token count and a seed. Output: buffers with random inputs, and for a
 * CHECK the results as plain loops in double give them, with what float32 may be off by. TIME workloads have
 * several copies of their weights, so that each call finds them where a pass over the model would: far away.
 * Uses the C library only: it is also built into the programs that run candidates elsewhere.
 */
#ifndef MOSSC_TUNER_WORKLOAD_H
#define MOSSC_TUNER_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A stored panel of weights as numbers [n_in][panel]; codegen/kernel_file.h has its text. */
typedef void WorkReader(float *out, const void *weights, int n_in, int panel, int dtype);

typedef struct {
    char kernel[16];             /* the template's name */
    int n_in, n_out, in_stride, out_stride, n_experts, weight_dtype, in_pairs, out_pairs, has_bias, accumulate;
    int n_heads, n_kv_heads, head_dim, head_stride, q_stride, kv_stride, window;
    int d_state, z_stride, bc_stride, zoh;       /* of a scan; n_out: its channels, out_stride: its stride */
    int panel, top_k;
    int renormalize;             /* of a router; out_stride: its rows'; eps: of the norm before it */
    double eps;
    int64_t weights_len, pack_len;           /* bytes: all experts of one copy; the most scratch a point needs */
} WorkShape;

typedef enum { WORK_CHECK, WORK_TIME } WorkKind;

/* All that a workload follows from. */
typedef struct {
    WorkShape shape;
    WorkKind kind;
    int n_tokens;
    uint64_t seed;
    int64_t far;                 /* bytes of weights that a TIME workload goes through before it meets one again */
    int64_t position;            /* of attention's first token */
} WorkSpec;

typedef struct Work Work;
/* NULL: no memory. Without a reader a CHECK has no reference: results can only be compared with bits that are kept. */
Work *work_new(const WorkSpec *spec, WorkReader *reader);
/* One that is to be made elsewhere: it has its spec and its token count, no buffers. */
Work *work_elsewhere(const WorkSpec *spec);
const WorkSpec *work_spec(const Work *work);
void work_free(Work *work);
int work_tokens(const Work *work);
int work_copies(const Work *work);

typedef union { void *pointer; int32_t i32; int64_t i64; } WorkValue;
/* The argument of that name, with the weights of one copy. False: there is none. */
bool work_argument(const Work *work, const char *name, int copy, WorkValue *value);

/* Calls have `n` tokens from now on, the first of those it was made with, with their results. False: not of this
 * kernel. */
bool work_set_tokens(Work *work, int n);
/* The scratch is `len` bytes from now on, its end right before what no kernel may touch. */
void work_set_scratch(Work *work, int64_t len);
/* Before a call whose result is checked: results as they were, junk in the scratch. */
void work_reset(Work *work);
/* The worst error in units of what is allowed, at most 1 where the result is right; infinite for NaN, for bytes
 * behind a buffer, and with `same_bits` for bits that differ from those kept. `where` says which element. */
double work_error(const Work *work, bool same_bits, char *where, size_t where_len);
/* Keep the results as those that other points must give bit for bit. */
void work_keep_bits(Work *work);
/* A hash of the bits kept; 0: none are. */
uint64_t work_bits(const Work *work);

#endif
