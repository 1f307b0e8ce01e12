/* What the runtime's own files share: the opaque structs of moss.h, and errors.
 *
 * Nothing here is exported. MOSS_INTERNAL hides a symbol that another file of the runtime (or the
 * generated code) needs, so a library exports the names of moss.h alone.
 */
#ifndef MOSS_INTERNAL_H
#define MOSS_INTERNAL_H

#include "moss.h"
#include "program.h"

#include <stdbool.h>

#define MOSS_INTERNAL __attribute__((visibility("hidden")))

/* A path as it fits into a message: its tail, after "..." when it is long. */
typedef struct { char text[112]; } moss_path_text;
MOSS_INTERNAL moss_path_text moss_path_clip(const char *path);

typedef struct {
    const uint8_t *data;      /* packed data, after the header; NULL: not open */
    void *map;                /* the whole file; NULL when the weights are embedded */
    size_t map_len;
    uint64_t checksum;        /* of the data, as the header says */
    moss_path_text shown;     /* the file, for messages */
} moss_weights;

/* What a device keeps of a model follows in the same block (moss_model_len). */
struct moss_model {
    moss_weights weights;
    const moss_code *code;    /* what this CPU runs; NULL for a GPU */
};

/* The header of a state; the generated code's part follows it. No pointers: a state may move. */
struct moss_state {
    char magic[8];
    uint32_t abi, reserved;
    uint64_t model_hash;      /* state_hash of moss_program */
    int64_t n_context, position;
    uint64_t len;             /* bytes of the whole block */
    uint64_t weights_values;  /* of the weights compiled in or with; 0: not known */
    uint64_t ticket;          /* 0: this block is the state; else a device has it: gpu_slots.c */
};
#define MOSS_STATE_MAGIC "MOSSSTA1"

/* Fill `error` (may be NULL) and return the status. */
MOSS_INTERNAL int moss_error_set(moss_error *error, moss_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Compare the data with their checksum. */
MOSS_INTERNAL int moss_weights_verify(const moss_weights *weights, moss_error *error);
MOSS_INTERNAL void moss_weights_close(moss_weights *weights);

/* What a model is beyond its weights' header, by kind of machine (cpu_model.c, gpu_model.c): start ends
 * moss_model_open, n_states and n_context are moss_model_open_sized's; stop undoes it, also half done. */
MOSS_INTERNAL int moss_model_start(moss_model *model, int verify, int32_t n_states, int64_t n_context,
                                   moss_error *error);
MOSS_INTERNAL void moss_model_stop(moss_model *model);

/* The first of the blank-separated `features` that this CPU or its system lacks, as a length-
 * counted part of `features`; NULL when it has all. */
MOSS_INTERNAL const char *moss_cpu_missing(const char *features, int *len);

/* The header of a state that lives in memory: is it one of this model, and sound? */
MOSS_INTERNAL int moss_state_check_header(const moss_state *state, moss_error *error);

/* Arguments of moss_eval, of moss_eval_batch (n_steps 1: room for so many tokens) and of moss_eval_prompts, but the
 * context. */
MOSS_INTERNAL int moss_eval_check(const moss_state *state, int32_t mode, int32_t chunk, const int32_t *tokens,
                                  int32_t n_tokens, const float *logits, int32_t n_logits, moss_error *error);
MOSS_INTERNAL int moss_eval_check_batch(moss_state *const *states, int32_t n_states, int32_t mode,
                                        const int32_t *tokens, int32_t n_steps, moss_error *error);
MOSS_INTERNAL int moss_eval_check_prompts(moss_state *const *states, int32_t n_states, int32_t mode, int32_t chunk,
                                          const int32_t *tokens, const int32_t *n_tokens, moss_error *error);

/* moss_generate by moss_eval_batch and moss_sample. */
MOSS_INTERNAL int moss_generate_check(moss_state *const *states, int32_t n_states, int32_t mode,
                                      const moss_sampler *samplers, const int32_t *next, const int32_t *tokens,
                                      int32_t n_steps, const float *scratch, moss_error *error);
MOSS_INTERNAL int moss_generate_steps(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode,
                                      moss_sampler *samplers, const int32_t *next, int32_t *tokens, int32_t n_steps,
                                      float *scratch, moss_error *error);

static inline uint64_t moss_align_up(uint64_t len)
{
    return (len + MOSS_ALIGN - 1) & ~(uint64_t)(MOSS_ALIGN - 1);
}

static inline bool moss_is_aligned(const void *block)
{
    return ((uintptr_t)block & (MOSS_ALIGN - 1)) == 0;
}

#endif
