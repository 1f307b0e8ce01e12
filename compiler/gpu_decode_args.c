/* Arguments and sizes that all launches of the decode list say alike: tensors, states, rings of weights. */
#include "gpu_decode.h"

#include <string.h>

/* ---- weights ---- */

const WeightSlot *gpu_try_slot(const BlockPlan *block, const char *tensor)
{
    for (int i = 0; i < block->n_weights; i++)
        if (strcmp(block->weights[i].tensor, tensor) == 0)
            return &block->weights[i];
    return NULL;
}

const WeightSlot *decode_slot(const Decoder *d, const char *tensor)
{
    const WeightSlot *slot = gpu_try_slot(d->layer->block, tensor);
    if (!slot)
        BUG("@%s has no %s", d->layer->block->name, tensor);
    return slot;
}

void decode_weight(const Decoder *d, const char *tensor)
{
    gpu_weights(d->g->b, d->layer->weights_offset + decode_slot(d, tensor)->offset);
}

void decode_weight_or_null(const Decoder *d, const char *tensor, bool is)
{
    if (is)
        decode_weight(d, tensor);
    else
        gpu_null(d->g->b);
}

void decode_scales(GpuModel *g, const WeightSlot *slot, int64_t block_offset)
{
    gpu_weights_or_null(g, slot->scales ? block_offset + slot->offset + slot->scales : -1);
}

void decode_matrix(const Decoder *d, const char *tensor)
{
    decode_weight(d, tensor);
    decode_scales(d->g, decode_slot(d, tensor), d->layer->weights_offset);
}

int decode_dtype(const GpuModel *g, const WeightSlot *slot) { return slot->dtype == DTYPE_Q8 ? 3 : g->act; }

void decode_state(const Decoder *d, const char *name)
{
    for (int i = 0; i < d->layer->block->n_states; i++) {
        const StateSlot *s = &d->layer->block->states[i];
        if (strcmp(s->name, name) != 0)
            continue;
        if (s->n_rows)
            gpu_state(d->g->b, d->layer->state_offset + s->offset, 0);
        else
            gpu_state(d->g->b, d->g->plan->state_len, d->layer->state_token_offset + s->token_offset);
        return;
    }
    BUG("@%s has no state %s", d->layer->block->name, name);
}

/* ---- how a product is shared out ---- */

/* Pairs of chunks of 64 bytes: of a row, of one of n slices of it. */
int decode_pairs(int64_t n_in, int dtype) { return up(up(n_in, 64) * (dtype == 3 ? 1 : 2), 2); }
int decode_group(int64_t n_in, int dtype, int n_slices, int most)
{
    return smaller(2 * up(decode_pairs(n_in, dtype), n_slices), most);
}

void decode_product_params(GpuModel *g, int n_slices, int group, int ring)
{
    gpu_param(g->b, "n_slices", n_slices);
    gpu_param(g->b, "group", group);
    gpu_param(g->b, "ring", ring);
}

/* Chunks a step and steps under way, as they were chosen where that fits beside `others` bytes, else as they are. */
void decode_choose_ring(const GpuModel *g, const char *key, int64_t n_in, int dtype, int n_slices, int n_warps,
                        int64_t others, int *group, int *ring)
{
    enum { MAX_RING = 6 };
    int chunks = gpu_choice(g, key, "group", *group), steps = gpu_choice(g, key, "ring", *ring);
    if (chunks % 2 || chunks > MAX_GROUP || steps > MAX_RING)
        return;
    chunks = decode_group(n_in, dtype, n_slices, chunks);
    if (others + ring_len(n_warps, chunks, steps) > gpu_shared_most(g))
        return;
    *group = chunks;
    *ring = steps;
}

void decode_end(const Decoder *d, LaunchExtent x, LaunchExtent y, int n_threads, int64_t shared_len, int flags)
{
    gpu_end(d->g->b, x, y, n_threads, (int)shared_len, gpu_flags(d->g) | d->flags | flags);
}

void decode_rows_and_top_k(const Decoder *d)
{
    gpu_count(d->g->b, COUNT_TOKENS);
    gpu_top_k(d->g, d->top_k);
}

void decode_next_args(const Decoder *d)
{
    gpu_weights_or_null(d->g, d->after.norm);
    gpu_weights_or_null(d->g, d->after.router);
}
