/* Workloads of a kernel under search.
 *
 * Checks have odd row counts: one token; fewer than a tile; some, unevenly chosen, an expert left out; for one expert
 * more than any block holds. Attention has a context of several blocks of keys, once none.
 * Timed are the kernel's token counts, with its weights as far away as a pass over the model leaves them.
 */
#include "search_work.h"

#include "kernel_call.h"
#include "../compiler/interrupt.h"

#include <dlfcn.h>
#include <math.h>
#include <string.h>

enum { MOST_FAR = 320 << 20 };

/* The reader of stored weights, built from the runtime's headers once a search. */
static bool load_reader(SearchRun *run)
{
    if (run->reader || run->builder.runner)
        return true;
    Text source = { 0 };
    kernel_file_write_reader(&source);
    Candidate candidate = candidate_write(&run->builder, run->diags, "reader", &source);
    text_free(&source);
    if (!candidates_compile(&run->builder, &candidate, 1))
        return false;
    void *handle = candidate.built ? dlopen(candidate.path, RTLD_NOW | RTLD_LOCAL) : NULL;
    run->reader = handle ? (WorkReader *)dlsym(handle, KERNEL_FILE_READER) : NULL;
    if (!run->reader)
        diag_report(run->diags, DIAG_TOOLCHAIN, NULL, "%s cannot make a library that can be loaded: %s",
                    run->builder.cc.args[0],
                    candidate.built ? dlerror() : candidate.words);
    return run->reader != NULL;
}

/* Bytes of weights that are read between two uses of the same. */
static int64_t far_of(const SearchRun *run, const Job *job)
{
    int64_t len = job->phase == PLAN_DECODE ? (int64_t)run->plan->decode_cost[0].weight_bytes : run->plan->weights_len;
    return len < MOST_FAR ? len : MOST_FAR;
}

bool search_work_keep_bits(SearchRun *run, SearchState *s)
{
    char words[TRIAL_DETAIL_LEN];
    /* Where a runner has trials, they keep the bits themselves. */
    if (s->has_bits || run->builder.runner)
        return s->has_bits = true;
    KernelCall *call = kernel_load(s->default_path, "", words, sizeof words);
    bool good = call != NULL;
    for (int i = 0; i < s->n_checks && good; i++) {
        work_set_scratch(s->checks[i], job_scratch(s->job, s->job->values));
        work_reset(s->checks[i]);
        good = kernel_bind(call, s->checks[i], words, sizeof words);
        if (good)
            kernel_run(call, 0);
        work_keep_bits(s->checks[i]);
    }
    kernel_free(call);
    if (!good)
        diag_report(run->diags, DIAG_RUN, NULL, "%s: %s", s->job->key, words);
    s->has_bits = good;
    return good;
}

double search_work_deadline(const Job *job)
{
    double operations, bytes;
    job_cost(job, job->tokens[0], &operations, &bytes);
    return 20 + 2 * DECIDE_MOST_PAIRS * 4 * (operations / 4e9 + bytes / 2e9);
}

/* A workload; for a runner only what it follows from. */
static Work *make(const SearchRun *run, const WorkSpec *spec)
{
    return run->builder.runner ? work_elsewhere(spec) : work_new(spec, run->reader);
}

/* Where attention begins in a check: within blocks of keys of every size, with some before them, and past a wrap of the
 * window unless that is very long; once at the very begin. */
static int64_t position_of(const WorkShape *shape, int n_tokens)
{
    enum { MOST_KEYS = 256, MOST_WINDOW = 4096 };
    const int window = shape->window <= MOST_WINDOW ? (shape->window + MOST_KEYS - 1) / MOST_KEYS * MOST_KEYS : 0;
    return n_tokens == 331 ? 0 : 2 * MOST_KEYS + window + 6 - n_tokens / 2;
}

bool search_work_make(SearchRun *run, SearchState *s)
{
    enum { DENSE, EXPERTS, ATTENTION, DECODE };
    static const int rows[][TRIAL_MAX_WORKS] = { { 1, 7, 29, 150, 631 }, { 1, 7, 29, 631 },
                                                 { 1, 7, 29, 150, 331 }, { 1, 1, 1 } };
    if (s->n_checks > 0)
        return true;
    if (!load_reader(run))
        return false;
    const WorkShape shape = job_work_shape(s->job);
    const uint64_t seed = (uint64_t)run->journal.seed + 1;
    const int kind = s->job->phase == PLAN_DECODE ? DECODE : strcmp(shape.kernel, "attention") == 0 ? ATTENTION
        : shape.n_experts > 1 ? EXPERTS : DENSE;
    bool good = true;
    for (int i = 0; i < TRIAL_MAX_WORKS && rows[kind][i] && good; i++) {
        const int n_tokens = rows[kind][i];
        const WorkSpec spec = { .shape = shape, .kind = WORK_CHECK, .n_tokens = n_tokens,
                                .seed = seed * 16 + (uint64_t)i, .position = position_of(&shape, n_tokens) };
        s->checks[i] = make(run, &spec);
        good = s->checks[i] != NULL;
        s->n_checks += good;
    }
    for (int i = 0; i < s->job->n_tokens && good; i++) {
        const WorkSpec spec = { .shape = shape, .kind = WORK_TIME, .n_tokens = s->job->tokens[i],
                                .seed = seed * 16 + 15 - (uint64_t)i, .far = far_of(run, s->job) / (i ? 4 : 1),
                                .position = 256 };
        s->times[i] = make(run, &spec);
        good = s->times[i] != NULL;
        s->n_times += good;
    }
    s->deadline = search_work_deadline(s->job);
    if (!good) {
        diag_report(run->diags, DIAG_RUN, NULL, "no memory to measure %s", s->job->key);
        return false;
    }
    return true;
}

int search_block_rows(const Job *job, const double *values)
{
    if (space_param(&job->space, "block_rows") < 0 || values[template_param(job->template, "n_experts")] > 1)
        return 0;
    return (int)values[template_param(job->template, "block_rows")];
}

void search_work_drop(SearchState *s)
{
    for (int i = 0; i < s->n_checks; i++)
        work_free(s->checks[i]);
    for (int i = 0; i < s->n_times; i++)
        work_free(s->times[i]);
    s->n_checks = s->n_times = 0;
    s->has_bits = false;
}
