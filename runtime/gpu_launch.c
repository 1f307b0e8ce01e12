/* Lists of launches: grids and arguments from run-time counts, and graphs of what is repeated.
 *
 * Input: the program's lists, a call. Output: work queued on the context's stream. Arguments are base addresses plus
 * the planner's offsets; everything that differs between calls of one kind lies in device memory, so a
 * list captured once can be launched again as it is.
 * Invariant: a graph is dropped before an address in it changes.
 */
#include "gpu.h"

typedef union { moss_cu_pointer pointer; int64_t i64; int32_t i32; } moss_gpu_value;

enum { MOSS_GPU_N_COUNTS = MOSS_GPU_RESIDENT + 1 };

static void moss_gpu_count_call(const moss_context *context, const moss_gpu_call *call,
                                int32_t counts[MOSS_GPU_N_COUNTS])
{
    const int32_t top_k = moss_program_data.mode_top_k[call->mode];
    counts[MOSS_GPU_ONE] = 1;
    counts[MOSS_GPU_TOKENS] = call->n_tokens;
    counts[MOSS_GPU_PAIRS] = call->n_tokens * top_k;
    counts[MOSS_GPU_SEQUENCES] = call->n_sequences;
    counts[MOSS_GPU_LOGITS] = call->n_logits;
    counts[MOSS_GPU_TOP_K] = top_k;
    counts[MOSS_GPU_PROCESSORS] = context->model->n_processors;
    counts[MOSS_GPU_APART] = call->n_tokens;
    counts[MOSS_GPU_RESIDENT] = context->model->n_processors;
}

static uint32_t moss_gpu_grid(const moss_gpu_extent *extent, const int32_t *counts)
{
    const int32_t count = counts[extent->count];
    if (extent->count == MOSS_GPU_RESIDENT)
        return (uint32_t)(count < extent->divisor ? 0 : count < extent->extra ? count : extent->extra);
    const int32_t more = extent->count == MOSS_GPU_APART ? counts[MOSS_GPU_SEQUENCES] - 1 : 0;
    return (uint32_t)((count + extent->divisor - 1) / extent->divisor + extent->extra + more);
}

static moss_gpu_value moss_gpu_argument(const moss_context *context, const moss_gpu_arg *arg, const int32_t *counts)
{
    const moss_cu_pointer input = context->memory + context->layout.call;
    const uint64_t offset = (uint64_t)arg->offset;
    switch ((moss_gpu_arg_kind)arg->kind) {
    case MOSS_GPU_ARG_WEIGHTS:      return (moss_gpu_value){ .pointer = context->model->weights + offset };
    case MOSS_GPU_ARG_STATE:        return (moss_gpu_value){ .pointer = context->states + offset
                                        + (uint64_t)arg->token_offset * (uint64_t)context->n_context };
    case MOSS_GPU_ARG_SCRATCH:      return (moss_gpu_value){ .pointer = context->memory + offset };
    case MOSS_GPU_ARG_TOKENS:       return (moss_gpu_value){ .pointer = input + offsetof(moss_gpu_input, tokens) };
    case MOSS_GPU_ARG_POSITIONS:    return (moss_gpu_value){ .pointer = input + offsetof(moss_gpu_input, positions) };
    case MOSS_GPU_ARG_SLOTS:        return (moss_gpu_value){ .pointer = input + offsetof(moss_gpu_input, slots) };
    case MOSS_GPU_ARG_ENDS:         return (moss_gpu_value){ .pointer = input + offsetof(moss_gpu_input, ends) };
    case MOSS_GPU_ARG_SAMPLERS:     return (moss_gpu_value){ .pointer = input + offsetof(moss_gpu_input, samplers) };
    case MOSS_GPU_ARG_LOGITS:       return (moss_gpu_value){ .pointer = context->memory + context->layout.logits };
    case MOSS_GPU_ARG_HISTORY:      return (moss_gpu_value){ .pointer = context->memory + context->layout.history };
    case MOSS_GPU_ARG_COUNT:        return (moss_gpu_value){ .i32 = counts[arg->offset] };
    case MOSS_GPU_ARG_INT:          return (moss_gpu_value){ .i32 = (int32_t)arg->offset };
    case MOSS_GPU_ARG_N_CONTEXT:    return (moss_gpu_value){ .i64 = context->n_context };
    case MOSS_GPU_ARG_STATE_STRIDE: return (moss_gpu_value){ .i64 = (int64_t)context->stride };
    case MOSS_GPU_ARG_NULL:
    case MOSS_GPU_ARG_TENSOR_MAP:   break;
    }
    return (moss_gpu_value){ .pointer = 0 };
}

/* Only kernels for sm_90 wait by themselves, and graphs of older drivers cannot hold that. */
static bool moss_gpu_may_depend(const moss_gpu_model *model, const moss_gpu_launch *launch)
{
    return (launch->flags & MOSS_GPU_DEPENDENT) && moss_program_data.gpu->sm >= 90
        && model->driver.version >= MOSS_CU_GRAPH_DEPENDENT_VERSION;
}

/* follows: another kernel of this call came before. */
static int moss_gpu_launch_kernel(moss_context *context, const moss_gpu_launch *launch, const int32_t *counts,
                                  bool follows)
{
    const moss_gpu_program *gpu = moss_program_data.gpu;
    const moss_gpu_model *model = context->model;
    moss_gpu_value values[MOSS_GPU_MAX_ARGS];
    void *arguments[MOSS_GPU_MAX_ARGS];
    _Alignas(8) moss_cu_launch_attribute attributes[2] = { { .id = 0 } };
    moss_cu_launch config = {
        .grid = { moss_gpu_grid(&launch->grid[0], counts), moss_gpu_grid(&launch->grid[1], counts), 1 },
        .block = { (uint32_t)launch->n_threads, 1, 1 }, .shared_len = (uint32_t)launch->shared_len,
        .stream = context->stream, .attributes = attributes,
    };
    if (config.grid[0] == 0 || config.grid[1] == 0)
        return 0;
    for (int32_t i = 0; i < launch->n_args; i++) {
        const moss_gpu_arg *arg = &gpu->args[launch->first_arg + i];
        values[i] = moss_gpu_argument(context, arg, counts);
        arguments[i] = arg->kind == MOSS_GPU_ARG_TENSOR_MAP ? (void *)&context->maps[arg->offset] : (void *)&values[i];
    }
    if (follows && moss_gpu_may_depend(model, launch))
        attributes[config.n_attributes++] = (moss_cu_launch_attribute){ .id = MOSS_CU_LAUNCH_DEPENDENT, .value.on = 1 };
    if (launch->flags & MOSS_GPU_COOPERATIVE)
        attributes[config.n_attributes++]
            = (moss_cu_launch_attribute){ .id = MOSS_CU_LAUNCH_COOPERATIVE, .value.on = 1 };
    return model->driver.launch(&config, model->kernels[launch->kernel], arguments, NULL);
}

/* One sequence takes launches of its own if the device has multiprocessors enough for all of them. */
static bool moss_gpu_takes_one(moss_gpu_list list, const int32_t *counts)
{
    const moss_gpu_launch *launches = moss_program_data.gpu->launches;
    for (int32_t i = list.begin; i < list.end; i++)
        if ((launches[i].flags & MOSS_GPU_IF_ONE) && moss_gpu_grid(&launches[i].grid[0], counts) == 0)
            return false;
    return counts[MOSS_GPU_TOKENS] == 1;
}

static int moss_gpu_launch_list(moss_context *context, moss_gpu_list list, const moss_gpu_call *call, bool follows)
{
    const moss_gpu_launch *launches = moss_program_data.gpu->launches;
    int32_t counts[MOSS_GPU_N_COUNTS];
    int result = 0;
    moss_gpu_count_call(context, call, counts);
    const int32_t left_out = (call->n_logits ? 0 : MOSS_GPU_IF_LOGITS)
        | (moss_gpu_takes_one(list, counts) ? MOSS_GPU_IF_MORE : MOSS_GPU_IF_ONE);
    for (int32_t i = list.begin; i < list.end && !result; i++) {
        if (launches[i].flags & left_out)
            continue;
        result = moss_gpu_launch_kernel(context, &launches[i], counts, follows);
        follows = true;
    }
    return result;
}

static int moss_gpu_launch_call(moss_context *context, const moss_gpu_call *call)
{
    const moss_gpu_program *gpu = moss_program_data.gpu;
    const int result = moss_gpu_launch_list(context, call->prefill ? gpu->prefill : gpu->decode, call, false);
    if (result || call->next == MOSS_GPU_NEXT_HOST)
        return result;
    return moss_gpu_launch_list(context, call->next == MOSS_GPU_NEXT_DRAW ? gpu->draw : gpu->feed, call, true);
}

/* ---- graphs ---- */

static int moss_gpu_capture(moss_context *context, const moss_gpu_call *call, moss_cu_graph_exec *exec)
{
    const moss_driver *driver = &context->model->driver;
    moss_cu_graph graph = NULL;
    int result = driver->capture_begin(context->stream, MOSS_CU_CAPTURE_THREAD);
    if (result)
        return result;
    result = moss_gpu_launch_call(context, call);
    const int ended = driver->capture_end(context->stream, &graph);
    if (!result)
        result = ended;
    if (!result)
        result = driver->graph_instantiate(exec, graph, 0);
    if (graph)
        driver->graph_destroy(graph);
    return result;
}

static bool moss_gpu_same_call(const moss_gpu_call *a, const moss_gpu_call *b)
{
    return a->n_sequences == b->n_sequences && a->n_tokens == b->n_tokens && a->n_logits == b->n_logits
        && a->mode == b->mode && a->prefill == b->prefill && a->next == b->next;
}

/* It may still run: that is waited for. */
static void moss_gpu_drop_graph(moss_context *context, moss_gpu_graph *graph)
{
    if (graph->exec) {
        context->model->driver.stream_wait(context->stream);
        context->model->driver.graph_exec_destroy(graph->exec);
    }
    *graph = (moss_gpu_graph){ .exec = NULL };
}

/* The entry of such a call, or a new one in the place of that used longest ago. */
static moss_gpu_graph *moss_gpu_find_graph(moss_context *context, const moss_gpu_call *call)
{
    moss_gpu_graph *place = &context->graphs[0];
    for (int i = 0; i < MOSS_GPU_MAX_GRAPHS; i++) {
        moss_gpu_graph *graph = &context->graphs[i];
        if (graph->last_use && moss_gpu_same_call(&graph->call, call))
            return graph;
        if (graph->last_use < place->last_use)
            place = graph;
    }
    moss_gpu_drop_graph(context, place);
    place->call = *call;
    return place;
}

void moss_gpu_drop_graphs(moss_context *context)
{
    for (int i = 0; i < MOSS_GPU_MAX_GRAPHS; i++)
        moss_gpu_drop_graph(context, &context->graphs[i]);
}

/* Decode comes again; a prompt's piece is captured when another of its length comes. */
int moss_gpu_run(moss_context *context, const moss_gpu_call *call, moss_error *error)
{
    int result = 0;
    moss_gpu_graph *graph = moss_gpu_find_graph(context, call);
    if (!graph->exec && (!call->prefill || graph->last_use))
        result = moss_gpu_capture(context, call, &graph->exec);
    graph->last_use = context->n_calls;
    if (!result)
        result = graph->exec ? context->model->driver.graph_launch(graph->exec, context->stream)
                             : moss_gpu_launch_call(context, call);
    return moss_gpu_check(context, result, "cannot run the model on the GPU", error);
}

/* ---- tensor maps ---- */

static int moss_gpu_encode_map(moss_context *context, int32_t i)
{
    enum { UINT8, UINT16, NO_INTERLEAVE = 0, PROMOTE_256 = 3, FILL_ZERO = 0 };
    const moss_gpu_tensor_map *map = &moss_program_data.gpu->tensor_maps[i];
    const moss_cu_pointer base = map->base == MOSS_GPU_ARG_WEIGHTS ? context->model->weights : context->memory;
    const uint64_t dims[2] = { (uint64_t)map->n_columns, (uint64_t)map->n_rows };
    const uint64_t strides[1] = { (uint64_t)map->row_stride };
    const uint32_t box[2] = { (uint32_t)map->box_columns, (uint32_t)map->box_rows }, steps[2] = { 1, 1 };
    const int swizzle = map->swizzle == 128 ? 3 : map->swizzle == 64 ? 2 : map->swizzle == 32 ? 1 : 0;
    return context->model->driver.map_encode(&context->maps[i], map->element_len == 1 ? UINT8 : UINT16, 2,
        (void *)(uintptr_t)(base + (uint64_t)map->offset), dims, strides, box, steps, NO_INTERLEAVE, swizzle,
        PROMOTE_256, FILL_ZERO);
}

int moss_gpu_encode_maps(moss_context *context, moss_error *error)
{
    int result = 0;
    for (int32_t i = 0; i < moss_program_data.gpu->n_tensor_maps && !result; i++)
        result = moss_gpu_encode_map(context, i);
    return moss_driver_check(&context->model->driver, result, "cannot describe a tensor to the GPU", error);
}
