/* Drawn weights: read every tensor, change some, write them all.
 *
 * Input: weights. Output: a safetensors file, every tensor F32.
 * Invariant: matrices keep their values; equal router rows are equal to the bit.
 */
#include "weights_draw.h"

#include "../support/safetensors_write.h"

#include <inttypes.h>
#include <string.h>

static bool ends_with(const char *name, const char *end)
{
    size_t len = strlen(name), end_len = strlen(end);
    return len >= end_len && strcmp(name + len - end_len, end) == 0;
}

/* Add a uniform number of at most `width` to each. */
static void shake(float *values, int64_t count, double width, Stream *stream)
{
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)((double)values[i] + width * stream_uniform(stream));
}

/* values [E, d]: copy rows so that 1 = 0, 3 = 2, ... or all = 0. */
static void equalize_rows(float *values, int64_t n_experts, int64_t d, bool all)
{
    for (int64_t e = 1; e < n_experts; e++) {
        int64_t from = all ? 0 : e - e % 2;
        memcpy(values + e * d, values + from * d, (size_t)d * sizeof *values);
    }
}

static void change(const TensorSpec *spec, float *values, Draw draw, Stream *stream)
{
    int64_t count = tensor_spec_count(spec);
    if (spec->matrix)
        return;
    if (ends_with(spec->name, "router.weight")) {
        if (draw == DRAW_TWINS || draw == DRAW_EQUAL)
            equalize_rows(values, spec->shape[0], spec->shape[1], draw == DRAW_EQUAL);
        return;
    }
    shake(values, count, ends_with(spec->name, "dt_proj.bias") ? 2 : 0.5, stream);
}

/* One entry of the header, its data beginning at `begin`. */
static void put_entry(Text *header, const TensorSpec *spec, size_t begin)
{
    size_t end = begin + (size_t)tensor_spec_count(spec) * sizeof(float);
    text_printf(header, "%s\"%s\": {\"dtype\": \"F32\", \"shape\": [", begin ? ", " : "", spec->name);
    for (int i = 0; i < spec->rank; i++)
        text_printf(header, "%s%" PRId64, i ? ", " : "", spec->shape[i]);
    text_printf(header, "], \"data_offsets\": [%zu, %zu]}", begin, end);
}

bool weights_draw(const Weights *weights, Draw draw, uint64_t seed, const char *path)
{
    Arena *arena = arena_new();
    Stream stream = { seed };
    Text header = { 0 }, data = { 0 }, file = { 0 };
    text_printf(&header, "{");
    for (int i = 0; i < weights_count(weights); i++) {
        const TensorSpec *spec = weights_spec(weights, i);
        int64_t count = tensor_spec_count(spec);
        float *values = arena_array(arena, float, (size_t)count);
        weights_read(weights, i, 0, count, values);
        change(spec, values, draw, &stream);
        put_entry(&header, spec, data.len);
        text_append(&data, (const char *)values, (size_t)count * sizeof *values);
    }
    text_printf(&header, "}");
    safetensors_put(&file, header.data, data.data, data.len);
    bool ok = safetensors_save(path, &file);
    text_free(&header);
    text_free(&data);
    text_free(&file);
    arena_free(arena);
    return ok;
}
