/* Worker: a child of mossc that holds the GPU, and does what it is asked to, a request at a time.
 *
 * Input: what to try, as text that plans are made of. Output: how it ended. A kernel that faults breaks the device for
 * its process, one that hangs never lets it go: the child is ended then, and the next request starts another.
 */
#ifndef MOSSC_TUNER_GPU_WORKER_H
#define MOSSC_TUNER_GPU_WORKER_H

#include "gpu_ceilings.h"
#include "gpu_trial.h"
#include "../ir/choices.h"

enum { GPU_CHOICES_LEN = 64 << 10, GPU_KEY_LEN = 512, GPU_BATCH = 16 };

/* PREPARE: compile the kernels of candidates, each a block of choices. CEILINGS: what the device can do at most. */
typedef enum { GPU_ASK_PREPARE, GPU_ASK_TRIAL, GPU_ASK_STEP, GPU_ASK_CEILINGS } GpuAsk;
typedef struct {
    GpuAsk what;
    char key[GPU_KEY_LEN];       /* TRIAL */
    int phase, tokens[GPU_TRIAL_PASSES], n_tokens, check_tokens;
    int chunk;                   /* STEP: the candidate's, 0: any; tokens[0]: of a prompt, 0: a decoded token */
    bool is_default, same_bits;
    char candidate[GPU_CHOICES_LEN], incumbent[GPU_CHOICES_LEN];     /* gpu_write_choices; PREPARE: one after another */
} GpuRequest;

typedef struct GpuWorker GpuWorker;
/* Of a model as without choices. Nothing is started yet. NULL: no memory. */
GpuWorker *gpu_worker_new(const Plan *base);
void gpu_worker_free(GpuWorker *worker);
/* The request that gpu_worker_ask sends next, cleared. */
GpuRequest *gpu_worker_request(GpuWorker *worker);
void gpu_worker_ask(GpuWorker *worker, double seconds, TrialResult *result);
/* What the last CEILINGS found; all 0 when it failed. */
GpuCeilings gpu_worker_ceilings(const GpuWorker *worker);

/* "key<TAB>name=value name=value" lines, ended by an empty one; false: too long. */
bool gpu_write_choices(const Choices *choices, char *to, size_t len);

#endif
