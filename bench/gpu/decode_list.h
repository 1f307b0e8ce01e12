/* The decode list of a model, for decode_bench: its kernels, its launches with their arguments, its tensors.
 *
 * decode_list.c makes it from settings (KEY=VALUE); numbers are those of compiler/gpu_decode.c unless a setting says
 * otherwise. Device memory is handed out in order from `list_base` on, which is 0 while there is no device.
 */
#ifndef DECODE_LIST_H
#define DECODE_LIST_H

#include "../../runtime/gpu_driver.h"

enum { MAX_ARGS = 36, MAX_LAUNCHES = 512, MAX_KERNELS = 64, MAX_ROWS = 16, HISTORY = 1024 };
enum { ROWS_ARG = 0x7fff0001 };      /* stands for n_rows until a batch is chosen */

typedef struct { char file[24], text[400]; const char *kind; int threads, blocks; moss_cu_function function; } Kernel;
typedef struct {
    int kernel, grid_x, grid_y, y_rows, resident, threads, shared_len, n_args;   /* y_rows: grid_y is the rows' count */
    uint64_t args[MAX_ARGS];
    int64_t n_bytes;                 /* of weights read by one row, experts chosen once */
} Launch;

/* layers: the kinds m (mamba), a (attention), f (mlp), in turn up to n_layers. */
typedef struct {
    int d, c, n, r, conv, experts, heads, kv, head_dim, window, f, vocab, n_layers;
    const char *layers;
} Model;

/* What a tensor is filled with. */
typedef enum {
    KIND_WEIGHTS, KIND_SCALE, KIND_ROUTER, KIND_ONE, KIND_CONV, KIND_DT_BIAS, KIND_A, KIND_ZERO, KIND_RING
} PieceKind;
typedef struct { uint64_t at, len; PieceKind kind; } Piece;

extern Kernel list_kernels[MAX_KERNELS];
extern Launch list_launches[MAX_LAUNCHES];
extern Piece list_pieces[];
extern int list_n_kernels, list_n_launches, list_n_pieces;
extern Model list_model;
extern uint64_t list_base, list_used;                    /* bytes handed out */

/* Where what the benchmark writes and reads lies: int32 and int64 [16], float rows, states [MAX_ROWS]. */
extern struct ListRows { uint64_t tokens, positions, slots, table, history, logits, states, state_stride; } list_rows;

/* Exit 2 where there is no such setting. */
int list_get(const char *key);
void list_set(const char *text);
/* All settings as they were at the first call. */
void list_reset(void);
/* All of the above, anew. */
void list_build(void);

#endif
