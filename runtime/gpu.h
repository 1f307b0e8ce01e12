/* What the files of the GPU runtime share: the model on its device, the context, slots and graphs.
 *
 * Functions return a moss_status with words in `error`. Invariant: all that a call may touch on the device was
 * allocated before it, but slots on the first use of a length of context, and graphs on their first use.
 */
#ifndef MOSS_GPU_H
#define MOSS_GPU_H

#include "gpu_driver.h"

enum {
    MOSS_GPU_MAX_SLOTS = 4096,    /* states of one context that are on the device */
    MOSS_GPU_MAX_GRAPHS = 128,
    MOSS_GPU_CALLS = 4,           /* calls whose input may wait for the device */
};

/* moss_model, and what is on the device. */
typedef struct {
    moss_model base;
    moss_driver driver;
    int32_t device, capability;        /* capability: 10 * major + minor */
    int32_t n_processors, shared_most; /* bytes of shared memory a block may have */
    char name[64];
    bool held;                         /* the device's primary context is */
    moss_cu_context context;
    moss_cu_module module;
    moss_cu_pointer weights;
    int32_t n_states;                  /* of each context, */
    int64_t n_context;                 /* and of what length; 0: not known yet */
    moss_cu_function kernels[];        /* [gpu->n_kernels] */
} moss_gpu_model;

static inline moss_gpu_model *moss_gpu_of(moss_model *model) { return (moss_gpu_model *)(void *)model; }

/* Where a state is, while it is on the device. ticket 0: free. */
typedef struct {
    uint64_t ticket;           /* the state's own must equal it */
    const moss_state *home;    /* the caller's block: compared, never followed */
} moss_gpu_slot;

/* Who chooses the next tokens: the host, or the device by the lists feed and draw. */
typedef enum { MOSS_GPU_NEXT_HOST, MOSS_GPU_NEXT_FEED, MOSS_GPU_NEXT_DRAW } moss_gpu_next;

/* What tells one captured graph from another; the rest is the same in every call of a context. */
typedef struct {
    int32_t n_sequences, n_tokens, n_logits, mode;
    bool prefill;
    moss_gpu_next next;
} moss_gpu_call;

/* last_use: what n_calls was, 0: this entry is free. exec: NULL until it is captured. */
typedef struct { moss_gpu_call call; uint64_t last_use; moss_cu_graph_exec exec; } moss_gpu_graph;

/* Input of a call, as it lies in pinned and in device memory. */
typedef struct {
    int64_t positions[MOSS_GPU_MAX_SEQUENCES];
    int32_t slots[MOSS_GPU_MAX_SEQUENCES];
    int32_t ends[MOSS_GPU_MAX_SEQUENCES];     /* tokens up to the end of each sequence's */
    moss_sampler samplers[MOSS_GPU_MAX_SEQUENCES];    /* of calls that draw */
    int32_t tokens[];          /* [moss_gpu_layout.most] */
} moss_gpu_input;
_Static_assert(sizeof(moss_sampler) == MOSS_GPU_SAMPLER_LEN, "kernels and moss_gpu_plan know its length");

struct moss_context {
    uint32_t magic;            /* tells a context from memory never initialised */
    const moss_gpu_model *model;
    moss_gpu_layout layout;
    moss_error lost;           /* status not 0: the device failed; every later call says so */
    moss_cu_stream stream;
    moss_cu_event sent[MOSS_GPU_CALLS];     /* the input of call i % MOSS_GPU_CALLS has left pinned memory */
    uint64_t n_calls, input_len;            /* bytes of one input */
    moss_cu_pointer memory;                 /* layout.end bytes */
    uint8_t *pinned;           /* inputs; history; samplers; logits of MOSS_GPU_MAX_SEQUENCES rows */
    int32_t *history;          /* [MOSS_GPU_HISTORY][MOSS_GPU_MAX_SEQUENCES] */
    moss_sampler *samplers;    /* [MOSS_GPU_MAX_SEQUENCES] */
    float *logits;             /* [MOSS_GPU_MAX_SEQUENCES][vocab_size] */
    moss_cu_pointer states;    /* n_slots slots, `stride` bytes apart */
    uint64_t states_len, stride;
    int64_t n_context;         /* of the states in the slots */
    int32_t n_slots;
    uint64_t salt, n_tickets;
    moss_gpu_slot slots[MOSS_GPU_MAX_SLOTS];
    moss_gpu_graph graphs[MOSS_GPU_MAX_GRAPHS];
    moss_cu_tensor_map maps[];              /* [gpu->n_tensor_maps] */
};

/* gpu_device.c: the device, its context held, and its free memory compared with what the program will need. */
MOSS_INTERNAL int moss_gpu_device_open(moss_gpu_model *model, moss_error *error);
MOSS_INTERNAL int moss_gpu_check_memory(const moss_gpu_model *model, moss_error *error);
MOSS_INTERNAL int moss_gpu_load_kernels(moss_gpu_model *model, moss_error *error);
/* Make the device's context this thread's, and give back what was before. */
MOSS_INTERNAL int moss_gpu_enter(const moss_gpu_model *model, moss_error *error);
MOSS_INTERNAL void moss_gpu_leave(const moss_gpu_model *model);
/* `what` names the memory in the error. */
MOSS_INTERNAL int moss_gpu_alloc(const moss_gpu_model *model, moss_cu_pointer *memory, uint64_t len, const char *what,
                                 moss_error *error);

/* gpu_upload.c: weights to model->weights, verified if wanted, while the caller does `meanwhile`. */
MOSS_INTERNAL int moss_gpu_upload(moss_gpu_model *model, int verify,
                                  int (*meanwhile)(moss_gpu_model *model, moss_error *error), moss_error *error);

/* gpu_slots.c: put states [n] on the device, where they are not, and tell their slots. */
MOSS_INTERNAL int moss_gpu_slots_make(moss_context *context, int64_t n_context, moss_error *error);
MOSS_INTERNAL int moss_gpu_slots_take(moss_context *context, moss_state *const *states, int32_t n, int32_t *slots,
                                      moss_error *error);
/* The same for any number of states, before a call that goes through them by parts: if one has no place or is stale,
 * none has been advanced. */
MOSS_INTERNAL int moss_gpu_slots_take_all(moss_context *context, moss_state *const *states, int32_t n_states,
                                          moss_error *error);
/* The device has run n_tokens through the state in this slot. */
MOSS_INTERNAL void moss_gpu_slot_advance(moss_context *context, int32_t slot, moss_state *state, int32_t n_tokens);

/* gpu_launch.c: one pass over the input that was sent, queued. */
MOSS_INTERNAL int moss_gpu_run(moss_context *context, const moss_gpu_call *call, moss_error *error);
MOSS_INTERNAL void moss_gpu_drop_graphs(moss_context *context);
MOSS_INTERNAL int moss_gpu_encode_maps(moss_context *context, moss_error *error);

/* gpu_context.c */
MOSS_INTERNAL int moss_gpu_check_context(const moss_context *context, moss_error *error);
/* A result of the driver: not 0 loses the context. */
MOSS_INTERNAL int moss_gpu_check(moss_context *context, int result, const char *what, moss_error *error);

#endif
