/* Building launch lists: growing tables, equal instances found again, lives of buffers noted. */
#include "gpu_build.h"
#include "place.h"
#include "slots.h"

#include "../ir/text.h"

#include <string.h>

struct GpuBuilder {
    Arena *arena;
    Launches out;
    int max_kernels, max_launches, max_args, max_maps, max_buffers[N_LISTS];
    ListId list;
    Kernel kernel;           /* of the launch being said */
    Launch launch;
};

/* `table` with room for one more element; only the last grown copy is used. */
static void *grown(Arena *arena, void *table, int n, int *max, size_t size)
{
    if (n < *max)
        return table;
    *max = *max ? 2 * *max : 64;
    void *copy = arena_alloc_array(arena, size, (size_t)*max);
    if (n)
        memcpy(copy, table, (size_t)n * size);
    return copy;
}

GpuBuilder *gpu_builder_new(Arena *arena)
{
    GpuBuilder *b = arena_one(arena, GpuBuilder);
    b->arena = arena;
    return b;
}

Launches *gpu_launches(GpuBuilder *b) { return &b->out; }

void gpu_list(GpuBuilder *b, ListId list)
{
    b->list = list;
    b->out.lists[list] = (LaunchList){ b->out.n_launches, b->out.n_launches };
}

void gpu_share(GpuBuilder *b, LaunchBuffer *buffer)
{
    LaunchBuffer ***buffers = &b->out.buffers[b->list];
    int *n = &b->out.n_buffers[b->list];
    *buffers = grown(b->arena, *buffers, *n, &b->max_buffers[b->list], sizeof **buffers);
    (*buffers)[(*n)++] = buffer;
}

static LaunchBuffer *add_buffer(GpuBuilder *b, const char *name, int64_t len, int64_t offset, int first)
{
    LaunchBuffer *buffer = arena_one(b->arena, LaunchBuffer);
    *buffer = (LaunchBuffer){ .name = name, .len = round_up(len > 0 ? len : 1, DEVICE_ALIGN), .offset = offset,
                              .first = first, .last = first };
    gpu_share(b, buffer);
    return buffer;
}

LaunchBuffer *gpu_buffer(GpuBuilder *b, const char *name, int64_t len) { return add_buffer(b, name, len, -1, -1); }

LaunchBuffer *gpu_zeroed(GpuBuilder *b, const char *name, int64_t len)
{
    LaunchBuffer *buffer = add_buffer(b, name, len, b->out.zeroed_len, 0);
    b->out.zeroed_len += buffer->len;
    return buffer;
}

/* ---- one launch ---- */

void gpu_begin(GpuBuilder *b, const char *template, int layer)
{
    b->kernel = (Kernel){ .template = template };
    b->launch = (Launch){ .layer = layer, .first_arg = b->out.n_args };
}

void gpu_param(GpuBuilder *b, const char *name, double value)
{
    if (b->kernel.n_params == KERNEL_MAX_PARAMS)
        BUG("%s: more than %d parameters", b->kernel.template, KERNEL_MAX_PARAMS);
    b->kernel.params[b->kernel.n_params++] = (KernelParam){ name, value };
}

void gpu_keyed(GpuBuilder *b, const char *key) { b->launch.key = key; }

void gpu_min_blocks(GpuBuilder *b, int n) { b->kernel.min_blocks = n; }

static void add_arg(GpuBuilder *b, LaunchArg arg)
{
    b->out.args = grown(b->arena, b->out.args, b->out.n_args, &b->max_args, sizeof *b->out.args);
    b->out.args[b->out.n_args++] = arg;
    b->launch.n_args++;
}

void gpu_null(GpuBuilder *b) { add_arg(b, (LaunchArg){ .kind = ARG_NULL }); }
void gpu_special(GpuBuilder *b, LaunchArgKind kind) { add_arg(b, (LaunchArg){ .kind = kind }); }
void gpu_count(GpuBuilder *b, LaunchCount count) { add_arg(b, (LaunchArg){ .kind = ARG_COUNT, .offset = count }); }
void gpu_int(GpuBuilder *b, int64_t value) { add_arg(b, (LaunchArg){ .kind = ARG_INT, .offset = value }); }
void gpu_weights(GpuBuilder *b, int64_t offset) { add_arg(b, (LaunchArg){ .kind = ARG_WEIGHTS, .offset = offset }); }

void gpu_state(GpuBuilder *b, int64_t offset, int64_t token_offset)
{
    add_arg(b, (LaunchArg){ .kind = ARG_STATE, .offset = offset, .token_offset = token_offset });
}

/* The launch being said needs the buffer. */
static void keep_alive(GpuBuilder *b, const LaunchBuffer *buffer)
{
    int at = b->out.n_launches - b->out.lists[b->list].begin;
    for (int i = b->out.n_buffers[b->list] - 1; i >= 0; i--) {
        LaunchBuffer *found = b->out.buffers[b->list][i];
        if (found != buffer)
            continue;
        found->first = found->first < 0 ? at : found->first;
        found->last = at;
        return;
    }
    BUG("%s: buffer %s is of another list", b->kernel.template, buffer->name);
}

void gpu_scratch(GpuBuilder *b, const LaunchBuffer *buffer, int64_t offset, LaunchAccess access)
{
    keep_alive(b, buffer);
    add_arg(b, (LaunchArg){ .kind = ARG_SCRATCH, .offset = offset, .buffer = buffer, .access = access });
}

void gpu_tensor_map(GpuBuilder *b, const TensorMap *map)
{
    if (map->buffer)
        keep_alive(b, map->buffer);
    int i = 0;
    while (i < b->out.n_maps && memcmp(&b->out.maps[i], map, sizeof *map) != 0)
        i++;
    if (i == b->out.n_maps) {
        b->out.maps = grown(b->arena, b->out.maps, b->out.n_maps, &b->max_maps, sizeof *b->out.maps);
        b->out.maps[b->out.n_maps++] = *map;
    }
    add_arg(b, (LaunchArg){ .kind = ARG_TENSOR_MAP, .offset = i, .buffer = map->buffer,
                            .access = map->buffer ? ACCESS_READ : ACCESS_NONE });
}

static bool same_kernel(const Kernel *a, const Kernel *b)
{
    if (strcmp(a->template, b->template) != 0 || a->n_threads != b->n_threads || a->n_params != b->n_params
        || a->min_blocks != b->min_blocks)
        return false;
    for (int i = 0; i < a->n_params; i++)
        if (strcmp(a->params[i].name, b->params[i].name) != 0 || a->params[i].value != b->params[i].value)
            return false;
    return true;
}

void gpu_end(GpuBuilder *b, LaunchExtent x, LaunchExtent y, int n_threads, int shared_len, int flags)
{
    int i = 0;
    b->kernel.n_threads = n_threads;
    while (i < b->out.n_kernels && !same_kernel(&b->out.kernels[i], &b->kernel))
        i++;
    if (i == b->out.n_kernels) {
        b->out.kernels = grown(b->arena, b->out.kernels, i, &b->max_kernels, sizeof *b->out.kernels);
        b->out.kernels[b->out.n_kernels++] = b->kernel;
    }
    b->launch.kernel = i;
    b->launch.grid[0] = x;
    b->launch.grid[1] = y;
    b->launch.shared_len = shared_len;
    b->launch.flags = flags;
    b->out.launches = grown(b->arena, b->out.launches, b->out.n_launches, &b->max_launches, sizeof *b->out.launches);
    b->out.launches[b->out.n_launches++] = b->launch;
    b->out.lists[b->list].end = b->out.n_launches;
}

/* ---- placing ---- */

void gpu_place(GpuBuilder *b)
{
    Launches *out = &b->out;
    out->scratch_len = out->zeroed_len;
    for (int list = 0; list < N_LISTS; list++) {
        int n = 0;
        PlacedItem *items = arena_array(b->arena, PlacedItem, (size_t)out->n_buffers[list] + 1);
        for (int i = 0; i < out->n_buffers[list]; i++) {
            LaunchBuffer *buffer = out->buffers[list][i];
            if (buffer->offset >= 0 && buffer->offset < out->zeroed_len)
                continue;
            if (buffer->first < 0)
                BUG("buffer %s is never used", buffer->name);
            items[n++] = (PlacedItem){ .len = buffer->len, .first = buffer->first, .last = buffer->last,
                                       .offset = &buffer->offset };
        }
        int64_t len = place_items(items, n);
        for (int i = 0; i < n; i++)
            *items[i].offset += out->zeroed_len;
        if (out->zeroed_len + len > out->scratch_len)
            out->scratch_len = out->zeroed_len + len;
    }
}
