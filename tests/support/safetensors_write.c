/* Safetensors for tests: u64 length, JSON header, tensor bytes.
 *
 * Input: a graph and a function for its values, or a header as text. Output: the file's bytes.
 * Invariant: names of the specification need no escapes in JSON.
 */
#include "safetensors_write.h"

#include <stdint.h>
#include <stdio.h>

void safetensors_put(Text *out, const char *header, const void *data, size_t len)
{
    Text json = { 0 };
    text_printf(&json, "%s", header);
    char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (char)((uint64_t)json.len >> 8 * i);
    text_append(out, prefix, sizeof prefix);
    text_append(out, json.data, json.len);
    text_append(out, data, len);
    text_free(&json);
}

static void put_element(Text *data, DType dtype, float value)
{
    uint16_t half = dtype == DTYPE_BF16 ? dtype_f32_to_bf16(value) : dtype_f32_to_f16(value);
    if (dtype == DTYPE_F32)
        text_append(data, (const char *)&value, sizeof value);
    else
        text_append(data, (const char *)&half, sizeof half);
}

static void put_entry(Text *header, const TensorSpec *spec, DType dtype, size_t begin, size_t end)
{
    text_printf(header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", header->len > 1 ? "," : "", spec->name,
                dtype_info(dtype)->safetensors);
    for (int axis = 0; axis < spec->rank; axis++)
        text_printf(header, "%s%lld", axis ? "," : "", (long long)spec->shape[axis]);
    text_printf(header, "],\"data_offsets\":[%zu,%zu]}", begin, end);
}

void safetensors_put_graph(Text *out, const Graph *graph, DType dtype, float (*value)(int tensor, int64_t i))
{
    Arena *arena = arena_new();
    Text header = { 0 }, data = { 0 };
    int n_tensors;
    const TensorSpec *specs = graph_tensors(graph, arena, &n_tensors);
    text_printf(&header, "{");
    for (int t = 0; t < n_tensors; t++) {
        size_t begin = data.len;
        for (int64_t i = 0; i < tensor_spec_count(&specs[t]); i++)
            put_element(&data, dtype, value(t, i));
        put_entry(&header, &specs[t], dtype, begin, data.len);
    }
    text_printf(&header, "}");
    safetensors_put(out, header.data, data.data, data.len);
    text_free(&header);
    text_free(&data);
    arena_free(arena);
}

bool safetensors_save(const char *path, const Text *bytes)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return false;
    bool good = fwrite(bytes->data, 1, bytes->len, file) == bytes->len;
    return fclose(file) == 0 && good;
}
