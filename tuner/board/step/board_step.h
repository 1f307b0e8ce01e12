/* Board step: what is built into a program that compares whole models elsewhere, beside what every such program has.
 *
 * mossc writes a BoardStep as C. The builds of the model are linked in, each under a prefix of its own, and found by
 * the paths that the request calls them by. Weights are not sent: the program makes random:0's, as mossc would pack
 * them, from the tensors' names and shapes and the plan's slots.
 */
#ifndef MOSSC_TUNER_BOARD_STEP_H
#define MOSSC_TUNER_BOARD_STEP_H

#include "../board.h"
#include "../../library.h"
#include "../../step_run.h"
#include "../../../codegen/codegen.h"

/* The functions of moss.h that a comparison calls. */
typedef enum { MODEL_LEN, CONTEXT_LEN, STATE_LEN, MODEL_OPEN, CONTEXT_INIT, STATE_INIT, EVAL } BoardFunction;
typedef int64_t BoardCall(BoardFunction function, const LibraryValue *values);
typedef struct { const char *path; BoardCall *call; } BoardModel;

/* The BoardCall of a build whose header has been included. */
#define BOARD_CALL(prefix)                                                                                           \
    static int64_t prefix##_call(BoardFunction function, const LibraryValue *v)                                      \
    {                                                                                                                \
        switch (function) {                                                                                          \
        case MODEL_LEN:    return (int64_t)prefix##_model_len();                                                     \
        case CONTEXT_LEN:  return (int64_t)prefix##_context_len(v[0].i32);                                           \
        case STATE_LEN:    return (int64_t)prefix##_state_len(v[0].i64);                                             \
        case MODEL_OPEN:   return prefix##_model_open(v[0].pointer, v[1].pointer, v[2].i32, v[3].pointer);           \
        case CONTEXT_INIT: return prefix##_context_init(v[0].pointer, v[1].pointer, v[2].i32, v[3].pointer,          \
                                                        v[4].pointer);                                               \
        case STATE_INIT:   return prefix##_state_init(v[0].pointer, v[1].i64, v[2].pointer);                         \
        case EVAL:         return prefix##_eval(v[0].pointer, v[1].pointer, v[2].i32, v[3].i32, v[4].pointer,        \
                                                v[5].i32, v[6].pointer, v[7].i32, v[8].pointer);                     \
        }                                                                                                            \
        return -1;                                                                                                   \
    }

typedef struct {
    StepRequest request;                 /* without weights */
    const BoardModel *models;
    int n_models;
    Plan *plan;                          /* what the packer looks at, and nothing else */
    Target target;                       /* of these: dot_offset and family */
    int dot_group;
    const TensorSpec *tensors;
    int n_tensors;
    double weights_deadline;             /* seconds for making them */
} BoardStep;

extern const BoardStep board_step;

/* Makes the weights and compares; tells what came of it as a trial is told of. */
void board_step_run(void);
/* weights.c: random:0 of the plan as a file without a name. -1 with words in `why`. */
int board_weights_make(char *why, size_t why_len);

#endif
