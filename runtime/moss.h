/* The C interface of a compiled MossNet model.
 *
 * Query sizes, then run; the caller owns all memory; nothing is allocated after init. Use:
 *   open the model -> ask for the lengths of context and state -> init both -> moss_eval.
 * A state is one block of constant length without pointers: copy it to fork, write it to a file to
 * save, copy an old one back to roll back; first moss_state_sync (it matters on GPUs). Results do not
 * depend on how a prompt is cut into calls, on the chunk length or on the number of threads.
 * Functions that return int give MOSS_OK or a negative moss_status with words in `error`.
 * Thread safety: a model may be shared; a context serves one call at a time.
 */
#ifndef MOSS_H
#define MOSS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOSS_API __attribute__((visibility("default")))

typedef enum {
    MOSS_OK = 0,
    MOSS_ERROR_ARGUMENT = -1,   /* a value out of range; the message names it */
    MOSS_ERROR_WEIGHTS = -2,    /* truncated, foreign or corrupt weights */
    MOSS_ERROR_STATE = -3,      /* a state of other weights or length, or one that is full */
    MOSS_ERROR_CPU = -4,        /* this CPU lacks a feature the code was compiled for */
    MOSS_ERROR_SYSTEM = -5,     /* the operating system refused, a missing file too; its words */
    MOSS_ERROR_DEVICE = -6,     /* GPU: no driver or device that will do, too little of its memory, lost */
} moss_status;

typedef struct { int32_t status; char message[252]; } moss_error;

typedef struct moss_model moss_model;
typedef struct moss_context moss_context;
typedef struct moss_state moss_state;

/* What was compiled: the model's name, "x86-64-v4", "bf16", and the manifest (JSON). */
MOSS_API const char *moss_name(void);
MOSS_API const char *moss_manifest(void);
MOSS_API int32_t moss_vocab_size(void);
MOSS_API int32_t moss_n_modes(void);
MOSS_API int32_t moss_mode_top_k(int32_t mode);   /* experts per token of a mode, -1 out of range */

/* A model: mapped, checked weights. `weights_path` NULL: the embedded ones, or the file that lies
 * beside the file that holds this code (that file's path + ".weights"), as compiled: beside a shared
 * library, or beside your program if it is linked in. A given file may hold other weights of the same
 * model. `verify` 0 skips the checksum of the data. */
MOSS_API size_t moss_model_len(void);
MOSS_API int moss_model_open(moss_model *model, const char *weights_path, int verify, moss_error *error);
MOSS_API void moss_model_close(moss_model *model);
/* The same for n_states states of n_context at a time: a GPU that cannot hold weights, scratch and them
 * is told before anything is allocated. moss_model_open means 16 states, of the context they will have. */
MOSS_API int moss_model_open_sized(moss_model *model, const char *weights_path, int verify, int32_t n_states,
                                   int64_t n_context, moss_error *error);
/* "NVIDIA H200"; "CPU"; of a program for several kinds of CPU the one whose code runs, "arm-dotprod" (model NULL:
 * would run here). */
MOSS_API const char *moss_model_device(const moss_model *model);

/* The processors that are worth a thread: of a phone its big cores, elsewhere all cores, and never one that this thread
 * may not use. Up to `room` of them to `cpus`, the fastest first; returns how many there are (0: unknown). */
MOSS_API int32_t moss_big_cpus(int32_t *cpus, int32_t room);

/* A context: threads (a GPU needs none) and scratch memory. n_threads >= 1, the calling thread included;
 * `cpus` NULL or [n_threads] processor numbers to bind to; the calling thread, bound to cpus[0],
 * gets its own set back in deinit, which the same thread calls. Memory aligned to 64 bytes. */
MOSS_API size_t moss_context_len(int32_t n_threads);   /* 0: n_threads is out of range */
MOSS_API int moss_context_init(moss_context *context, const moss_model *model, int32_t n_threads,
                               const int32_t *cpus, moss_error *error);
MOSS_API void moss_context_deinit(moss_context *context);

/* A state: what the model remembers of one sequence. n_context bounds the sequence only when
 * some layer attends to all tokens; otherwise sequences are endless. Aligned to 64 bytes. */
MOSS_API size_t moss_state_len(int64_t n_context);   /* 0: n_context is out of range */
MOSS_API int moss_state_init(moss_state *state, int64_t n_context, moss_error *error);
/* After a restore: is this block of `len` bytes a state of this model and the weights it was compiled
 * with? Weights given to moss_model_open are not told apart. */
MOSS_API int moss_state_check(const moss_state *state, size_t len, moss_error *error);
MOSS_API int64_t moss_state_position(const moss_state *state);   /* tokens seen */
/* Bring the state home: after it the block holds all of the state and no place on the device. Call it
 * before you copy, save, move or free the block, or take it to another context. For CPUs it does nothing. */
MOSS_API int moss_state_sync(moss_context *context, moss_state *state, moss_error *error);

/* Run n_tokens >= 1 through the model in pieces of at most `chunk` tokens (0, or more than it: the
 * compiled length; 1: the one-token schedule). Logits of the last n_logits tokens: [n_logits, vocab].
 * On an error the state is as before the call. */
MOSS_API int moss_eval(moss_context *context, moss_state *state, int32_t mode, int32_t chunk,
                       const int32_t *tokens, int32_t n_tokens, float *logits, int32_t n_logits,
                       moss_error *error);

/* Prompts of n_states >= 1 different states of equal n_context, one after another in `tokens`; state i's has
 * n_tokens[i] >= 1. A GPU runs them together, at most `chunk` tokens in all at a time, so that weights are read for
 * all at once; a CPU runs one after another. Logits of each one's last token: [n_states, vocab], or NULL. Each result
 * is, to the bit, what moss_eval gives; on a GPU unless it takes a piece of a single token in one of the two ways. */
MOSS_API int moss_eval_prompts(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode,
                               int32_t chunk, const int32_t *tokens, const int32_t *n_tokens, float *logits,
                               moss_error *error);

/* One token for each of n_states >= 1 different states of equal n_context: their weights are read
 * once. Logits: [n_states, vocab], or NULL. Each result is, to the bit, what moss_eval gives; on a GPU, what any two or
 * more states together give: one alone may take another way, which adds up in another order. */
MOSS_API int moss_eval_batch(moss_context *context, moss_state *const *states, int32_t n_states,
                             int32_t mode, const int32_t *tokens, float *logits, moss_error *error);

/* Sampling. temperature 0 takes the largest (the first of equals). top_k 0, top_p 1, min_p 0 are
 * off. Filters apply in the order top_k, top_p, min_p, then temperature. `scratch` holds
 * 2 * vocab_size floats. The generator is xoshiro256**; one seed gives one text everywhere. */
typedef struct { float temperature, top_p, min_p; int32_t top_k; uint64_t rng[4]; } moss_sampler;
MOSS_API void moss_sampler_init(moss_sampler *sampler, float temperature, int32_t top_k,
                                float top_p, float min_p, uint64_t seed);
MOSS_API int32_t moss_sample(moss_sampler *sampler, const float *logits, float *scratch);

/* n_steps >= 1 tokens for each of n_states states, as moss_eval_batch and moss_sample in turn give them.
 * next [n_states]: each one's next token, not seen yet. tokens [n_steps, n_states]: what follows; its
 * last row is not seen yet either, so it is `next` of a call that goes on. samplers [n_states]: a GPU
 * draws by itself. scratch: (n_states + 2) * vocab_size floats. */
MOSS_API int moss_generate(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode,
                           moss_sampler *samplers, const int32_t *next, int32_t *tokens, int32_t n_steps,
                           float *scratch, moss_error *error);

#ifdef __cplusplus
}
#endif
#endif
