/* A stand-in for a GPU: a program of five kernels, and a driver that runs them late, as a device does.
 *
 * The model is a running hash of its tokens, so every logit depends on all tokens before. Work waits in a queue
 * until somebody waits for it: what is read from pinned memory too late, or written to it too early, shows.
 * Fresh memory of the device is poison. Tests set what the driver has, what fails, and read what was done.
 */
#ifndef FAKE_GPU_H
#define FAKE_GPU_H

#include "program.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FAKE_CHUNK = 8, FAKE_VOCAB = 300, FAKE_PROCESSORS = 7, FAKE_TOKEN_LEN = 8,
    FAKE_DATA_LEN = (9 << 20) + 4321,      /* several pieces of an upload, the last one odd */
    FAKE_FILE_LEN = MOSS_WEIGHTS_HEADER_LEN + FAKE_DATA_LEN,
    FAKE_MAX_LAUNCHES = 64,
    FAKE_TABLE_LAUNCHES = 8,               /* of the tables that fake_reset() makes */
};

typedef struct {
    const char *kernel;
    uint32_t grid[3], block, shared_len;
    bool dependent, cooperative;
} fake_launch;

typedef struct {
    /* what there is */
    bool no_library;
    int version, n_devices, capability, shared_most;
    size_t free_len;                 /* bytes of the device not allocated */
    const char *lacks;               /* symbol that the library has not */
    const char *fails;               /* symbol that returns fail_code, from its fail_after-th call on */
    int fail_code, fail_after;
    int fails_at;                    /* the call, of n_calls, that returns fail_code; 0: none */
    bool stays_broken;               /* so do those after it */
    const char *ptx_log;             /* not NULL: the PTX is refused with these words */
    /* what was done */
    int n_calls;                     /* of functions that can fail where a context can be entered */
    int n_allocs, n_live;            /* of the device and pinned; those not freed, of all things made */
    int n_captures, n_replays, n_states_up, n_states_down, n_maps;
    int n_launches;                  /* captured or not */
    fake_launch launches[FAKE_MAX_LAUNCHES];   /* the first of them */
} fake_gpu;

fake_gpu *fake_device(void);
/* Everything as on a good device; program and counts too. */
void fake_reset(void);
moss_program *fake_program(void);
moss_gpu_program *fake_tables(void);
void fake_full_attention(bool on);
uint8_t *fake_weights(void);         /* [FAKE_FILE_LEN], header first; embedded in the program */

/* What the model is: logits [FAKE_VOCAB] after a token, from the hash before it, which moves on. */
void fake_step(uint64_t *hash, int64_t seen, int32_t token, int32_t top_k, float *logits);

#endif
