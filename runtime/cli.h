/* What the commands of an executable artifact share: session, tokens, messages, the machine.
 *
 * The command line stands on moss.h and the program's data alone, as any user of a library would.
 * Functions that return int give an exit code; on failure they have printed one line.
 * Invariant: memory is taken when a command starts and not while it runs the model.
 */
#ifndef MOSS_CLI_H
#define MOSS_CLI_H

#include "args.h"
#include "moss.h"
#include "program.h"

enum { MOSS_BYTE_VOCAB = 256 };   /* a model of so many tokens reads bytes: a byte is its token */

typedef struct { int32_t *ids; int32_t n; } moss_tokens;

/* An open model with everything one command needs, in one block. */
typedef struct {
    const moss_args *args;
    void *block;
    size_t block_len;
    moss_model *model;
    moss_context *context;
    uint8_t *states;             /* n_states blocks of state_len bytes */
    moss_state **list;           /* [n_states], each of them */
    size_t state_len, context_len;
    float *logits;               /* [n_rows, vocab_size] */
    float *scratch;              /* [n_states + 2, vocab_size], of moss_sample and moss_generate */
    int64_t n_context;
    int32_t n_threads, mode, chunk;
    moss_error error;
} moss_session;

/* The commands. */
int moss_run_main(const moss_args *args);
int moss_bench_main(const moss_args *args);
int moss_eval_main(const moss_args *args);
int moss_info_main(const moss_args *args);

/* session.c */
int moss_session_open(moss_session *session, const moss_args *args, int32_t n_states,
                      int64_t n_context, int32_t n_rows);
void moss_session_close(moss_session *session);
moss_state *moss_session_state(const moss_session *session, int32_t i);
int moss_session_reset(moss_session *session, int32_t i);   /* an empty state */
int moss_session_eval(moss_session *session, int32_t state, const int32_t *tokens, int32_t n,
                      int32_t n_logits);                    /* at most one piece of `chunk` */
int32_t moss_chunk_len(const moss_args *args);              /* tokens a piece */
uint64_t moss_scratch_len(int32_t n_threads);               /* of the device, if there is one */

/* Prompts of n_tokens [n] tokens for the first n states; logits [n, vocab_size]. */
int moss_session_eval_prompts(moss_session *session, const int32_t *tokens, const int32_t *n_tokens, int32_t n);
/* One token for each of the first n states; logits [n, vocab_size]. */
int moss_session_eval_batch(moss_session *session, const int32_t *tokens, int32_t n);

/* As moss_generate, of the first n states: its status. What is wrong is in session->error and not said yet: a line of
 * text may have to end first. A GPU is asked for MOSS_SESSION_STEPS at a time, so that text still flows and Ctrl-C is
 * heard; CPUs lose nothing by one at a time. */
enum { MOSS_SESSION_STEPS = 16 };
int32_t moss_session_steps(void);
int moss_session_generate(moss_session *session, moss_sampler *samplers, int32_t n, const int32_t *next,
                          int32_t *tokens, int32_t n_steps);

/* tokens.c: the ids are malloc'd. */
int moss_tokens_read(moss_tokens *tokens, const moss_args *args, moss_option text, moss_option file,
                     const char *standard);

/* machine.c */
int32_t moss_default_threads(void);        /* the big cores', within a container's quota */
/* Keep this thread and those it makes on the big cores, or warn that they are too many for them. */
void moss_use_big_cores(const moss_args *args, int32_t n_threads);
uint64_t moss_peak_rss(void);              /* bytes */
double moss_seconds(void);                 /* monotonic */
void moss_interrupt_install(void);
bool moss_interrupted(void);               /* Ctrl-C or a request to end came */

/* One line `program: error: ...` on stderr; returns `code`. */
int moss_cli_fail(const moss_args *args, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int moss_cli_fail_status(const moss_args *args, const moss_error *error);
/* A line that replaces itself, on a terminal only; NULL clears it. */
void moss_cli_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
void moss_cli_json_string(FILE *out, const char *text);
int moss_cli_flush(const moss_args *args);   /* stdout: was everything written? */

#endif
