/* Launch lists as text: the part of `--emit plan` that is different for GPUs.
 *
 * Input: a Plan with launches. Output: kernels with their parameters, then every list: grid, threads and
 * arguments of each launch, and the scratch of each list with its life in launches.
 */
#include "gpu_plan.h"

static const char *const list_names[N_LISTS] = { "prefill", "decode", "feed", "draw" };

static void print_extent(LaunchExtent e, Text *out)
{
    if (e.count == COUNT_ONE) {
        text_printf(out, "%d", (1 + e.divisor - 1) / e.divisor + e.extra);
        return;
    }
    if (e.count == COUNT_RESIDENT) {
        text_printf(out, "%d..%d", e.divisor, e.extra);
        return;
    }
    text_printf(out, "%s", launch_count_text(e.count));
    if (e.divisor > 1)
        text_printf(out, "/%d", e.divisor);
    if (e.extra)
        text_printf(out, "+%d", e.extra);
}

static void print_arg(const LaunchArg *arg, Text *out)
{
    switch (arg->kind) {
    case ARG_WEIGHTS: text_printf(out, "weights+%lld", (long long)arg->offset); break;
    case ARG_STATE:
        text_printf(out, "state+%lld", (long long)arg->offset);
        if (arg->token_offset)
            text_printf(out, "+%lld*n_context", (long long)arg->token_offset);
        break;
    case ARG_SCRATCH:
        text_printf(out, "%s%%%s", arg->access == ACCESS_READ ? "" : arg->access == ACCESS_WRITE ? ">" : "+>",
                    arg->buffer->name);
        if (arg->offset)
            text_printf(out, "+%lld", (long long)arg->offset);
        text_printf(out, "@%lld", (long long)arg->buffer->offset);
        break;
    case ARG_COUNT: text_printf(out, "#%s", launch_count_text((LaunchCount)arg->offset)); break;
    case ARG_INT: text_printf(out, "%lld", (long long)arg->offset); break;
    case ARG_TENSOR_MAP: text_printf(out, "map%lld", (long long)arg->offset); break;
    default: text_printf(out, "%s", launch_arg_text(arg->kind));
    }
}

static void print_kernels(const Launches *l, Text *out)
{
    text_printf(out, "\nkernels\n");
    for (int i = 0; i < l->n_kernels; i++) {
        const Kernel *k = &l->kernels[i];
        text_printf(out, "  k%-3d %s, %d threads:", i, k->template, k->n_threads);
        for (int p = 0; p < k->n_params; p++) {
            text_printf(out, " %s ", k->params[p].name);
            text_double(out, k->params[p].value);
        }
        text_printf(out, "\n");
    }
}

static void print_launch(const Launches *l, int at, int first, Text *out)
{
    const Launch *launch = &l->launches[at];
    const Kernel *k = &l->kernels[launch->kernel];
    text_printf(out, "  %4d", at - first);
    if (launch->layer >= 0)
        text_printf(out, " layer %-3d", launch->layer);
    else
        text_printf(out, " %-9s", "main");
    text_printf(out, " k%-3d %-10s grid ", launch->kernel, k->template);
    print_extent(launch->grid[0], out);
    text_printf(out, " x ");
    print_extent(launch->grid[1], out);
    if (launch->shared_len)
        text_printf(out, ", shared %d", launch->shared_len);
    if (launch->flags & LAUNCH_IF_LOGITS)
        text_printf(out, ", if logits");
    if (launch->flags & LAUNCH_COOPERATIVE)
        text_printf(out, ", cooperative");
    if (launch->flags & (LAUNCH_IF_ONE | LAUNCH_IF_MORE))
        text_printf(out, launch->flags & LAUNCH_IF_ONE ? ", one sequence" : ", several");
    text_printf(out, "\n       ");
    for (int i = 0; i < launch->n_args; i++) {
        text_printf(out, " ");
        print_arg(&l->args[launch->first_arg + i], out);
    }
    text_printf(out, "\n");
}

static void print_maps(const Launches *l, Text *out)
{
    if (l->n_maps)
        text_printf(out, "\ntensor maps\n");
    for (int i = 0; i < l->n_maps; i++) {
        const TensorMap *m = &l->maps[i];
        text_printf(out, "  map%-3d %s%s+%lld: %lld x %lld of %d bytes, stride %lld, box %d x %d, swizzle %d\n", i,
                    launch_arg_text(m->base), m->buffer ? m->buffer->name : "", (long long)m->offset,
                    (long long)m->n_rows, (long long)m->n_columns, m->element_len, (long long)m->row_stride,
                    m->box_rows, m->box_columns, m->swizzle);
    }
}

void gpu_print(const Plan *plan, Text *out)
{
    const Launches *l = plan->launches;
    text_printf(out, "\nactivations %s, scratch %lld\n", l->act == 1 ? "bf16" : "f16", (long long)l->scratch_len);
    print_kernels(l, out);
    print_maps(l, out);
    for (int list = 0; list < N_LISTS; list++) {
        LaunchList at = l->lists[list];
        text_printf(out, "\n%s: %d launches (> written, +> updated)\n", list_names[list], at.end - at.begin);
        for (int i = at.begin; i < at.end; i++)
            print_launch(l, i, at.begin, out);
    }
}
