/* Tools of the tests of single trials. */
#include "trial_tools.h"

#include "../../compiler/outfile.h"
#include "models.h"

#include <stdlib.h>
#include <string.h>

static const char mixed[] =
    "{\"format\":\"mossnet-graph/1\",\"name\":\"mixed\",\"vocab_size\":50,\"d_model\":24,\"experts\":4,\"top_k\":[2,3],"
    "\"layers\":[{\"op\":\"mamba\"},{\"op\":\"attention\",\"heads\":4,\"kv_heads\":2,\"head_dim\":20,\"window\":50},"
    "{\"op\":\"attention\",\"heads\":2},{\"op\":\"mlp\",\"d_ff\":40}]}";

Arena *trial_arena;
char trial_folder[64];

void trial_need(bool fact, const char *text, const char *file, int line)
{
    if (fact)
        return;
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, text);
    out_folder_erase(trial_folder);
    exit(3);
}

void trial_tools_begin(void)
{
    strcpy(trial_folder, "/tmp/test_trial_XXXXXX");
    if (!mkdtemp(trial_folder))
        exit(3);
    trial_arena = arena_new();
}

void trial_tools_end(void)
{
    out_folder_erase(trial_folder);
    arena_free(trial_arena);
}

SearchRun trial_run_of(DType dtype)
{
    int n;
    Arena *arena = trial_arena;
    const Graph *graph = graph_read_text(arena, diags_new(arena), "mixed.json", mixed, strlen(mixed));
    NEED(graph);
    const TensorSpec *specs = graph_tensors(graph, arena, &n);
    DType *dtypes = arena_array(arena, DType, (size_t)n);
    for (int i = 0; i < n; i++)
        dtypes[i] = specs[i].matrix ? dtype : DTYPE_F32;
    Module *module = build_module(arena, graph, dtypes);
    TargetId target = target_resolve(TARGET_HOST);
    NEED(passes_run(module, pass_families(target), diags_new(arena), NULL, NULL));
    SearchRun run = { .arena = arena, .diags = diags_new(arena), .plan = plan_module(arena, graph, module, target) };
    run.builder = (Builder){ .arena = arena, .folder = trial_folder, .target = target, .n_jobs = 2 };
    NEED(candidate_find_compiler(&run.builder, run.diags, NULL));
    return run;
}

static Candidate compile(const SearchRun *run, const Text *source, bool guarded)
{
    static int n_files;
    const char *name = arena_printf(trial_arena, "file%d", n_files++);
    Candidate candidate = candidate_write(&run->builder, run->diags, name, source);
    candidate.guarded = guarded;
    candidates_compile(&run->builder, &candidate, 1);
    return candidate;
}

Candidate trial_compile(const SearchRun *run, const Text *source) { return compile(run, source, false); }
Candidate trial_compile_guarded(const SearchRun *run, const Text *source) { return compile(run, source, true); }

TrialRequest trial_request(const SearchState *state, const Candidate *candidate, const char *suffix,
                           const double *values)
{
    TrialRequest request = { .path = candidate->path, .suffix = suffix, .n_checks = state->n_checks,
                             .same_bits = state->has_bits,
                             .block_rows = search_block_rows(state->job, values),
                             .pack_len = job_scratch(state->job, values), .deadline = 3 };
    memcpy(request.checks, state->checks, sizeof request.checks);
    return request;
}
