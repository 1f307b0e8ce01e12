/* Driver: the steps of a compile, in order. */
#include "driver.h"

#include "build.h"
#include "checks.h"
#include "closest.h"
#include "codes.h"
#include "gpu_accept.h"
#include "gpu_plan.h"
#include "graph_read.h"
#include "outfile.h"
#include "passes/pass.h"
#include "plan.h"
#include "planned.h"
#include "../codegen/codegen.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool driver_is_graph(const char *path)
{
    size_t len = strlen(path);
    return len > 5 && strcmp(path + len - 5, ".json") == 0;
}

static void report_unknown_target(Diags *diags, const char *name)
{
    const char *names[N_TARGETS];
    char hint[CLOSEST_HINT_LEN];
    for (int i = 0; i < N_TARGETS; i++)
        names[i] = target_info((TargetId)i)->name;
    diag_report(diags, DIAG_USAGE, NULL, "unknown target `%s`%s (mossc targets lists them)", name,
                closest_hint(hint, name, names, N_TARGETS));
}

bool driver_choose_target(Compilation *c)
{
    const char *name = c->options->value[OPTION_TARGET];
    if (name && !target_from_name(name, &c->target)) {
        if (!planned_report(c->diags, PLANNED_TARGET, name))
            report_unknown_target(c->diags, name);
        return false;
    }
    c->target = target_resolve(name ? c->target : TARGET_HOST);
    return true;
}

static bool read_graph(Compilation *c)
{
    int64_t top_k[GRAPH_MAX_MODES];
    int n;
    c->graph = graph_read_file(c->arena, c->diags, c->model);
    if (!c->graph || !options_ints(c->options, c->diags, OPTION_EXPERTS, top_k, GRAPH_MAX_MODES, &n))
        return false;
    return !n || graph_set_modes(c->graph, c->diags, top_k, n);
}

/* The checkpoint named, or that beside the graph, whether it is there or not. */
static const char *checkpoint_path(const Compilation *c)
{
    if (c->options->value[OPTION_WEIGHTS])
        return c->options->value[OPTION_WEIGHTS];
    int len = (int)strlen(c->model);
    return arena_printf(c->arena, "%.*s.safetensors", driver_is_graph(c->model) ? len - 5 : len, c->model);
}

/* The checkpoint, or random:0. */
static const char *weights_source(const Compilation *c)
{
    const char *beside = checkpoint_path(c);
    if (c->options->value[OPTION_WEIGHTS] || access(beside, F_OK) == 0)
        return beside;
    diag_report(c->diags, DIAG_WEIGHTS_RANDOM, NULL,
                "no --weights and no %s: random:0 is used, and what the model says will be noise", beside);
    return "random:0";
}

static bool open_weights(Compilation *c)
{
    c->weights = weights_open(c->arena, c->diags, c->graph, weights_source(c));
    return c->weights != NULL;
}

static bool is_gpu(const Compilation *c) { return target_info(c->target)->family == FAMILY_GPU; }

static bool parse_quant(const Compilation *c, DType *quant)
{
    const char *text = c->options->value[OPTION_QUANT];
    bool known = dtype_from_text(text, quant) && *quant != DTYPE_I32;
    if (known && !(is_gpu(c) && (*quant == DTYPE_F32 || *quant == DTYPE_Q4)))
        return true;
    diag_report(c->diags, DIAG_TARGET_QUANT, NULL, "`--quant %s` for target %s: expected %s", text,
                target_info(c->target)->name, is_gpu(c) ? "bf16, f16 or q8" : "f32, bf16, f16, q8 or q4");
    return false;
}

/* The embedding and the head stay q8 in q4: a few per cent of the bytes and most of the harm (bench/NOTES.md). */
static DType stored_dtype(const Compilation *c, const TensorSpec *spec, DType quant)
{
    return is_gpu(c) ? gpu_dtype(spec, quant) : quant == DTYPE_Q4 && spec->layer < 0 ? DTYPE_Q8 : quant;
}

/* --quant for the matrices, else what the checkpoint says; the rest stays float32. */
static bool choose_dtypes(Compilation *c)
{
    int n;
    DType quant = DTYPE_BF16;
    bool given = c->options->value[OPTION_QUANT] != NULL;
    const TensorSpec *specs = graph_tensors(c->graph, c->arena, &n);
    if (given && !parse_quant(c, &quant))
        return false;
    c->dtypes = arena_array(c->arena, DType, (size_t)n);
    for (int i = 0; i < n; i++) {
        DType own = c->weights ? weights_dtype(c->weights, weights_find(c->weights, specs[i].name)) : quant;
        c->dtypes[i] = !specs[i].matrix ? DTYPE_F32 : !given ? own : stored_dtype(c, &specs[i], quant);
    }
    return !is_gpu(c) || gpu_accepts(c->graph, c->dtypes, c->target, c->diags);
}

static bool lower(Compilation *c)
{
    Text dump = { 0 };
    const char *after = c->options->value[OPTION_DUMP];
    c->module = build_module(c->arena, c->graph, c->dtypes);
    bool ok = passes_run(c->module, pass_families(c->target), c->diags, after, &dump);
    if (dump.len)
        fputs(dump.data, stdout);
    text_free(&dump);
    return ok;
}

static void plan_once(Compilation *c)
{
    c->plan = is_gpu(c) ? gpu_plan_module_chosen(c->arena, c->graph, c->module, c->target, c->choices, c->max_scratch)
            : (target_has_codes(c->target) ? codes_plan : plan_module_chosen)(c->arena, c->graph, c->module, c->target,
                                                                              c->choices);
}

static double mb(int64_t len) { return (double)len / 1e6; }

/* A longer piece of a prompt at a time is faster, and takes more of the device's memory. */
static void warn_scratch(const Compilation *c, const Plan *untuned)
{
    if (is_gpu(c) && !c->max_scratch && c->plan->chunk > untuned->chunk)
        diag_report(c->diags, DIAG_TUNING_MEMORY, NULL, "tuning chose to take %d tokens of a prompt at a time: %.2f MB of "
                    "scratch on the GPU, and %.2f MB for %d (--max-scratch BYTES says how much it may be)",
                    c->plan->chunk, mb(c->plan->shared_len), mb(untuned->shared_len), untuned->chunk);
}

static bool scratch_fits(const Compilation *c)
{
    if (!c->max_scratch || c->plan->shared_len <= c->max_scratch)
        return true;
    diag_report(c->diags, DIAG_MEMORY_BUDGET, NULL, "%s needs %lld bytes of scratch (%.2f MB) for %d tokens at a time, "
                "the fewest there are; --max-scratch allows %lld", c->graph->name, (long long)c->plan->shared_len,
                mb(c->plan->shared_len), c->plan->chunk, (long long)c->max_scratch);
    return false;
}

/* Kernels are known when there is a plan; what was chosen of them makes another. */
static bool make_plan(Compilation *c)
{
    plan_once(c);
    if (c->options->value[OPTION_TUNING]) {
        const Plan *untuned = c->plan;
        c->choices = c->choose(c);
        if (!c->choices)
            return false;
        plan_once(c);
        warn_scratch(c, untuned);
    }
    if (!scratch_fits(c))
        return false;
    return !c->max_rss || plan_fits(c->plan, c->diags, c->max_rss, c->n_context, c->n_threads);
}

static bool read_numbers(Compilation *c)
{
    int64_t threads;
    bool ok = options_bytes(c->options, c->diags, OPTION_MAX_RSS, &c->max_rss)
        && options_bytes(c->options, c->diags, OPTION_MAX_SCRATCH, &c->max_scratch)
        && options_int(c->options, c->diags, OPTION_CONTEXT, 1, INT32_MAX, 4096, &c->n_context)
        && options_int(c->options, c->diags, OPTION_THREADS, 1, 1024, sysconf(_SC_NPROCESSORS_ONLN), &threads);
    c->n_threads = ok ? (int)threads : 0;
    if (!ok || !c->max_scratch || is_gpu(c))
        return ok;
    diag_report(c->diags, DIAG_USAGE, NULL, "`--max-scratch` for target %s: it is for GPUs (--max-rss is for CPUs, too)",
                target_info(c->target)->name);
    return false;
}

static bool check_dump(const Compilation *c)
{
    const char *after = c->options->value[OPTION_DUMP];
    bool found = !after || strcmp(after, "build") == 0;
    for (int i = 0; i < n_passes && !found; i++)
        found = (passes[i].families & pass_families(c->target)) && strcmp(after, passes[i].name) == 0;
    if (found)
        return true;
    diag_report(c->diags, DIAG_USAGE, NULL, "`--dump-after %s`: no such pass for target %s", after,
                target_info(c->target)->name);
    diag_note(c->diags, NULL, "build: as built, before the first pass%s", "");
    for (int i = 0; i < n_passes; i++)
        if (passes[i].families & pass_families(c->target))
            diag_note(c->diags, NULL, "%s: %s", passes[i].name, passes[i].summary);
    return false;
}

/* --tokenizer: the only one built in turns bytes into ids. */
static bool check_tokenizer(const Compilation *c)
{
    const char *tokenizer = c->options->value[OPTION_TOKENIZER];
    if (!tokenizer || strcmp(tokenizer, "bytes") == 0)
        return true;
    diag_report(c->diags, DIAG_USAGE, NULL, "`--tokenizer %s`: expected bytes; a tokenizer file cannot be built in "
                "yet, such a model takes --tokens", tokenizer);
    return false;
}

/* What is wrong with the options is said before the graph is read and a checkpoint chosen, so that
 * nothing is said about those in vain. */
static bool check_options(Compilation *c)
{
    DType quant;
    return driver_choose_target(c) && (!c->options->value[OPTION_QUANT] || parse_quant(c, &quant)) && read_numbers(c)
        && check_dump(c) && check_tokenizer(c);
}

/* Bytes are ids for a model of 256 ids. */
static bool check_vocabulary(const Compilation *c)
{
    if (!c->options->value[OPTION_TOKENIZER])
        return true;
    if (c->graph->vocab_size != 256)
        diag_report(c->diags, DIAG_USAGE, NULL, "`--tokenizer bytes` needs vocab_size 256, the graph has %lld",
                    (long long)c->graph->vocab_size);
    return c->graph->vocab_size == 256;
}

static bool plan_model(Compilation *c, bool need_weights)
{
    bool named = c->options->value[OPTION_WEIGHTS] != NULL;
    return read_graph(c) && check_vocabulary(c) && (!(need_weights || named) || open_weights(c)) && choose_dtypes(c)
        && lower(c) && make_plan(c);
}

bool driver_plan(Compilation *c, bool need_weights) { return check_options(c) && plan_model(c, need_weights); }

bool driver_check_output(const Compilation *c, const char *path)
{
    return check_not_input(c->diags, path, c->model) && check_not_input(c->diags, path, checkpoint_path(c));
}

static bool write_text(Compilation *c, void (*print)(const Compilation *, Text *))
{
    Text text = { 0 };
    print(c, &text);
    bool to_stdout = !c->out || strcmp(c->out, "-") == 0, ok = true;
    if (to_stdout)
        fwrite(text.data, 1, text.len, stdout);      /* main tells when that fails */
    else
        ok = out_replace(c->arena, c->diags, c->out, text.data, text.len);
    text_free(&text);
    return ok;
}

static void print_ir(const Compilation *c, Text *out) { module_print(c->module, out); }
static void print_plan(const Compilation *c, Text *out) { plan_print(c->plan, out); }
static void print_ptx(const Compilation *c, Text *out) { codegen_write_ptx(c->arena, c->plan, out); }
static void print_dot(const Compilation *c, Text *out) { module_print_dot(c->module, out); }

/* PTX is for GPUs, and is there when mossc was built with LLVM. */
static bool check_ptx(const Compilation *c, const char *emit)
{
    bool ptx = strcmp(emit, "ptx") == 0, artifact = artifact_is_kind(emit);
    if (ptx && !is_gpu(c)) {
        diag_report(c->diags, DIAG_USAGE, NULL, "`--emit ptx` for target %s: PTX is for a100 and h100",
                    target_info(c->target)->name);
        return false;
    }
    if ((ptx || (artifact && is_gpu(c))) && !codegen_gpu_available()) {
        diag_report(c->diags, DIAG_TOOLCHAIN, NULL, "target %s needs LLVM 19, and this mossc was built without it: build "
                    "it again with clang-19, opt-19 and llvm-19-dev there", target_info(c->target)->name);
        return false;
    }
    return true;
}

bool driver_compile(Compilation *c, const char *emit)
{
    static const struct { const char *name; void (*print)(const Compilation *, Text *); } texts[] = {
        { "ir", print_ir }, { "plan", print_plan }, { "dot", print_dot }, { "ptx", print_ptx },
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(emit, texts[i].name) == 0)
            return check_options(c) && check_ptx(c, emit) && (!c->out || driver_check_output(c, c->out))
                && plan_model(c, false) && write_text(c, texts[i].print);
    if (!artifact_is_kind(emit)) {
        if (!planned_report(c->diags, PLANNED_EMIT, emit))
            diag_report(c->diags, DIAG_USAGE, NULL,
                        "`--emit %s`: expected exe, lib, obj, static, c, ptx, ir, plan or dot", emit);
        return false;
    }
    if (!c->out) {
        diag_report(c->diags, DIAG_USAGE, NULL, "`-o OUT` is missing: where the artifact goes");
        return false;
    }
    return check_options(c) && check_ptx(c, emit) && artifact_check(c, emit) && plan_model(c, true)
        && artifact_write(c, emit);
}
