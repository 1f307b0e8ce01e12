/* Safetensors for tests: u64 length, JSON header, tensor bytes.
 *
 * Input: a graph and a function for its values, or a header as text. Output: the file's bytes.
 * Invariant: good files are laid out by the compiler's own writer of headers.
 */
#include "safetensors_write.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

void safetensors_put(Text *out, const char *header, const void *data, size_t len)
{
    size_t header_len = strlen(header);
    char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (char)((uint64_t)header_len >> 8 * i);
    text_append(out, prefix, sizeof prefix);
    text_append(out, header, header_len);
    text_append(out, data, len);
}

static void put_element(Text *data, DType dtype, float value)
{
    uint16_t half = dtype == DTYPE_BF16 ? dtype_f32_to_bf16(value) : dtype_f32_to_f16(value);
    if (dtype == DTYPE_F32)
        text_append(data, (const char *)&value, sizeof value);
    else
        text_append(data, (const char *)&half, sizeof half);
}

static SafetensorsEntry entry_of(const TensorSpec *spec, DType dtype)
{
    SafetensorsEntry entry = { .name = spec->name, .dtype = dtype, .rank = spec->rank };
    memcpy(entry.shape, spec->shape, (size_t)spec->rank * sizeof *spec->shape);
    return entry;
}

void safetensors_put_graph(Text *out, const Graph *graph, DType dtype, float (*value)(int tensor, int64_t i))
{
    Arena *arena = arena_new();
    int n_tensors;
    const TensorSpec *specs = graph_tensors(graph, arena, &n_tensors);
    SafetensorsEntry *entries = arena_array(arena, SafetensorsEntry, (size_t)n_tensors);
    for (int t = 0; t < n_tensors; t++)
        entries[t] = entry_of(&specs[t], dtype);
    safetensors_put_header(out, entries, n_tensors);
    for (int t = 0; t < n_tensors; t++)
        for (int64_t i = 0; i < tensor_spec_count(&specs[t]); i++)
            put_element(out, dtype, value(t, i));
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
