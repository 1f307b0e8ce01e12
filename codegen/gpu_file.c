/* Writer for GPUs: a plan's launches as PTX and as the tables of runtime/gpu_program.h.
 *
 * Input: a Plan with launches. Output: PTX text with every kernel once; C that defines gpu_program from it, and
 * the moss_program that names it. The same plan gives the same bytes.
 */
#include "gpu_file.h"
#include "codegen.h"
#include "ptx.h"

#include <string.h>

bool codegen_gpu_available(void) { return ptx_available(); }

static const char *kernel_name(Ptx *ptx, const Kernel *kernel)
{
    TemplateBinding bindings[KERNEL_MAX_PARAMS];
    for (int i = 0; i < kernel->n_params; i++)
        bindings[i] = (TemplateBinding){ kernel->params[i].name, kernel->params[i].value };
    return ptx_instance(ptx, kernel->template, bindings, kernel->n_params, kernel->n_threads, kernel->min_blocks);
}

/* All kernels requested, in the order of the plan; names[i] is kernels[i]'s. */
static Ptx *open_kernels(Arena *arena, const Plan *plan, const char ***names)
{
    const Launches *l = plan->launches;
    Ptx *ptx = ptx_open(target_sm(plan->target));
    *names = arena_array(arena, const char *, (size_t)l->n_kernels);
    for (int i = 0; i < l->n_kernels; i++)
        (*names)[i] = arena_strdup(arena, kernel_name(ptx, &l->kernels[i]));
    return ptx;
}

void codegen_write_ptx(Arena *arena, const Plan *plan, Text *out)
{
    const char **names;
    Ptx *ptx = open_kernels(arena, plan, &names);
    ptx_finish(ptx, out, NULL);
    ptx_close(ptx);
}

void codegen_write_kernels(const Plan *plan, const bool *wanted, Text *out)
{
    Ptx *ptx = ptx_open(target_sm(plan->target));
    for (int i = 0; i < plan->launches->n_kernels; i++)
        if (wanted[i])
            kernel_name(ptx, &plan->launches->kernels[i]);
    ptx_finish(ptx, out, NULL);
    ptx_close(ptx);
}

const char **codegen_kernel_names(Arena *arena, const Plan *plan)
{
    const char **names;
    ptx_close(open_kernels(arena, plan, &names));
    return names;
}

/* ---- tables ---- */

static const char *const counts[N_COUNTS] = {
#define LAUNCH_COUNT(id, text) #id,
#include "../ir/launch.def"
#undef LAUNCH_COUNT
};

static const char *const arg_kinds[N_ARG_KINDS] = {
#define LAUNCH_ARG(id, text) #id,
#include "../ir/launch.def"
#undef LAUNCH_ARG
};

static void write_args(const Launches *l, Text *out)
{
    text_printf(out, "static const moss_gpu_arg gpu_args[] = {\n");
    for (int i = 0; i < l->n_args; i++) {
        const LaunchArg *arg = &l->args[i];
        text_printf(out, "    { MOSS_GPU_ARG_%s, %lld, ", arg_kinds[arg->kind], (long long)arg->token_offset);
        if (arg->kind == ARG_COUNT)
            text_printf(out, "MOSS_GPU_%s },\n", counts[arg->offset]);
        else
            text_printf(out, "%lld },\n", (long long)(arg->offset + (arg->buffer && arg->kind == ARG_SCRATCH
                                                                     ? arg->buffer->offset : 0)));
    }
    text_printf(out, "};\n\n");
}

static void write_extent(LaunchExtent e, Text *out)
{
    text_printf(out, "{ MOSS_GPU_%s, %d, %d }", counts[e.count], e.divisor, e.extra);
}

static void write_flags(int flags, Text *out)
{
    static const struct { int flag; const char *name; } rows[] = {
        { LAUNCH_IF_LOGITS, "MOSS_GPU_IF_LOGITS" }, { LAUNCH_DEPENDENT, "MOSS_GPU_DEPENDENT" },
        { LAUNCH_COOPERATIVE, "MOSS_GPU_COOPERATIVE" }, { LAUNCH_IF_ONE, "MOSS_GPU_IF_ONE" },
        { LAUNCH_IF_MORE, "MOSS_GPU_IF_MORE" },
    };
    const char *before = "";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!(flags & rows[i].flag))
            continue;
        text_printf(out, "%s%s", before, rows[i].name);
        before = " | ";
    }
    text_printf(out, "%s", *before ? "" : "0");
}

static void write_launches(const Launches *l, Text *out)
{
    text_printf(out, "static const moss_gpu_launch gpu_launches[] = {\n");
    for (int i = 0; i < l->n_launches; i++) {
        const Launch *launch = &l->launches[i];
        text_printf(out, "    { %d, ", launch->kernel);
        write_flags(launch->flags, out);
        text_printf(out, ", { ");
        write_extent(launch->grid[0], out);
        text_printf(out, ", ");
        write_extent(launch->grid[1], out);
        text_printf(out, " }, %d, %d, %d, %d },   /* %s", l->kernels[launch->kernel].n_threads, launch->shared_len,
                    launch->first_arg, launch->n_args, l->kernels[launch->kernel].template);
        if (launch->layer >= 0)
            text_printf(out, ", layer %d", launch->layer);
        text_printf(out, " */\n");
    }
    text_printf(out, "};\n\n");
}

static void write_maps(const Launches *l, Text *out)
{
    if (!l->n_maps)
        return;
    text_printf(out, "static const moss_gpu_tensor_map gpu_tensor_maps[] = {\n");
    for (int i = 0; i < l->n_maps; i++) {
        const TensorMap *m = &l->maps[i];
        text_printf(out, "    { MOSS_GPU_ARG_%s, %d, %lld, %lld, %lld, %lld, %d, %d, %d },\n", arg_kinds[m->base],
                    m->element_len, (long long)(m->offset + (m->buffer ? m->buffer->offset : 0)), (long long)m->n_rows,
                    (long long)m->n_columns, (long long)m->row_stride, m->box_rows, m->box_columns, m->swizzle);
    }
    text_printf(out, "};\n\n");
}

static void write_gpu_program(const Plan *plan, Text *out)
{
    const Launches *l = plan->launches;
    const LaunchList *lists = l->lists;
    text_printf(out, "static const moss_gpu_program gpu_program = {\n    .sm = %d,\n    .ptx = gpu_ptx,\n"
                     "    .ptx_len = sizeof gpu_ptx - 1,\n    .kernels = gpu_kernels,\n    .n_kernels = %d,\n"
                     "    .launches = gpu_launches,\n    .args = gpu_args,\n", target_sm(plan->target), l->n_kernels);
    if (l->n_maps)
        text_printf(out, "    .tensor_maps = gpu_tensor_maps,\n");
    text_printf(out, "    .n_launches = %d,\n    .n_args = %d,\n    .n_tensor_maps = %d,\n", l->n_launches, l->n_args,
                l->n_maps);
    text_printf(out, "    .prefill = { %d, %d },\n    .decode = { %d, %d },\n    .feed = { %d, %d },\n    .draw = { %d, %d },\n",
                lists[LIST_PREFILL].begin, lists[LIST_PREFILL].end, lists[LIST_DECODE].begin, lists[LIST_DECODE].end,
                lists[LIST_FEED].begin, lists[LIST_FEED].end, lists[LIST_DRAW].begin, lists[LIST_DRAW].end);
    text_printf(out, "    .scratch_len = %lld,\n    .zeroed_len = %lld,\n};\n\n", (long long)l->scratch_len,
                (long long)l->zeroed_len);
}

void codegen_write_gpu_model(Arena *arena, const Plan *plan, WeightSums sums, bool embedded, Text *out)
{
    Text text = { 0 };
    const char **names;
    Ptx *ptx = open_kernels(arena, plan, &names);
    ptx_finish(ptx, &text, NULL);
    ptx_close(ptx);
    text_printf(out, "/* %s, compiled by mossc for %s, matrices in %s. Generated: do not edit.\n *\n",
                plan->graph->name, target_info(plan->target)->name, plan->quant);
    text_printf(out, " * Weights: %lld bytes packed; %d kernels, %d launches; chunks of %d tokens.\n */\n\n",
                (long long)plan->weights_len, plan->launches->n_kernels, plan->launches->n_launches, plan->chunk);
    text_printf(out, "static const char gpu_ptx[] =\n");
    c_write_literal(out, text.data);
    text_printf(out, ";\n\nstatic const char *const gpu_kernels[] = {\n");
    for (int i = 0; i < plan->launches->n_kernels; i++)
        text_printf(out, "    \"%s\",\n", names[i]);
    text_printf(out, "};\n\n");
    write_args(plan->launches, out);
    write_launches(plan->launches, out);
    write_maps(plan->launches, out);
    write_gpu_program(plan, out);
    c_write_program(plan, sums, embedded, true, out);
    text_free(&text);
}
