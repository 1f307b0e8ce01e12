/* Board weights: random:0, packed where they are read, by the compiler's own packer.
 *
 * Input: the tensors and the plan of board_step. Output: a weights file in memory, which every build of the model maps.
 * Invariant: its bytes are those that mossc writes for `--weights random:0`.
 */
#include "board_step.h"

#include "../../watch.h"
#include "../../../compiler/random_weights.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What the packer asks of the target; ir/target.c knows more than a C library has everywhere. */
const Target *target_info(TargetId id)
{
    (void)id;
    return &board_step.target;
}

int target_dot_group(TargetId id)
{
    (void)id;
    return board_step.dot_group;
}

static int find(void *context, const char *tensor)
{
    (void)context;
    for (int i = 0; i < board_step.n_tensors; i++)
        if (strcmp(board_step.tensors[i].name, tensor) == 0)
            return i;
    return -1;
}

static int64_t out_rows(void *context, int tensor)
{
    (void)context;
    const TensorSpec *spec = &board_step.tensors[tensor];
    return spec->rank < 2 ? spec->shape[0] : spec->shape[spec->rank - 2];
}

static void read_random(void *context, int tensor, int64_t begin, int64_t count, float *out)
{
    (void)context;
    random_weights_read(0, &board_step.tensors[tensor], begin, count, out);
}

typedef struct { uint8_t *file; bool *made; } Making;

static void make(void *context)
{
    const Making *m = context;
    const TensorSource source = { NULL, find, out_rows, read_random, NULL };
    const long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    BadValue bad;
    pack_weights(board_step.plan, &source, n_cpus > 0 ? (int)n_cpus : 1, m->file, &bad);
    *m->made = !bad.found;
}

/* Another process makes them: one that runs out of memory is ended, and this one can say so. */
static bool make_watched(uint8_t *file, char *why, size_t why_len)
{
    bool ok = false, *made = watch_memory(sizeof *made);
    if (!made)
        return snprintf(why, why_len, "no memory for weights"), false;
    Making making = { file, made };
    const Watched end = watch_run(make, &making, board_step.weights_deadline);
    ok = end.status == TRIAL_OK && *made;
    if (!ok)
        snprintf(why, why_len, "weights could not be made there: %s", *end.detail ? end.detail : "a bad value");
    watch_release(made, sizeof *made);
    return ok;
}

int board_weights_make(char *why, size_t why_len)
{
    const int64_t len = pack_len(board_step.plan);
    int file = memfd_create("weights", 0);
    void *map = file >= 0 && ftruncate(file, (off_t)len) == 0
              ? mmap(NULL, (size_t)len, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
    bool ok = map != MAP_FAILED;
    if (!ok)
        snprintf(why, why_len, "no memory for %lld bytes of weights: %s", (long long)len, strerror(errno));
    ok = ok && make_watched(map, why, why_len);
    if (map != MAP_FAILED)
        munmap(map, (size_t)len);
    if (!ok && file >= 0)
        close(file);
    return ok ? file : -1;
}
