/* Weights: one face for a mapped safetensors file and for random weights.
 *
 * Input: a graph and a source. Output: float32 ranges of the graph's tensors.
 * Invariant: once open, every tensor of the specification is there with its shape and a type that
 * converts; the map is read-only and nothing changes, so any number of threads may read.
 */
#include "weights.h"
#include "random_weights.h"
#include "safetensors.h"
#include "../ir/quant.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors data is little-endian");

typedef struct { TensorSpec spec; DType dtype; const unsigned char *data; } Tensor;
typedef struct { const char *name; int tensor; } Name;

struct Weights {
    Arena *arena;
    const char *source;
    Tensor *tensors;
    int n_tensors;
    Name *names;              /* sorted */
    uint64_t seed;            /* of random weights: those without a map */
    unsigned char *map;
    size_t map_len;
};

/* --- against the graph --- */

static void dtype_refuse(Diags *diags, const Place *at, const SafetensorsEntry *entry)
{
    Text accepted = { 0 };
    for (int i = 0; i < N_DTYPES; i++)
        if (*dtype_info((DType)i)->safetensors)
            text_printf(&accepted, "%s%s", accepted.len ? ", " : "", dtype_info((DType)i)->safetensors);
    diag_report(diags, DIAG_WEIGHTS_DTYPE, at, "%s: found dtype %.20s, expected one of %s", entry->name,
                entry->dtype_text, accepted.data);
    text_free(&accepted);
}

static bool same_shape(const TensorSpec *spec, const SafetensorsEntry *entry)
{
    return spec->rank == entry->rank
        && memcmp(spec->shape, entry->shape, (size_t)spec->rank * sizeof spec->shape[0]) == 0;
}

static void shape_refuse(Weights *weights, Diags *diags, const Place *at, const TensorSpec *spec,
                         const SafetensorsEntry *entry)
{
    diag_report(diags, DIAG_WEIGHTS_SHAPE, at, "%s: found shape %s, expected %s", spec->name,
                shape_text(weights->arena, entry->shape, entry->rank),
                shape_text(weights->arena, spec->shape, spec->rank));
    if (spec->per_expert && spec->shape[0] == 1 && entry->rank == spec->rank - 1)
        diag_note(diags, NULL, "the expert axis is there even with one expert");
}

static void tensor_check(Weights *weights, Diags *diags, const Place *at, const Safetensors *file,
                         Tensor *tensor)
{
    const TensorSpec *spec = &tensor->spec;
    const SafetensorsEntry *entry = safetensors_find(file, spec->name);
    if (!entry)
        diag_report(diags, DIAG_WEIGHTS_MISSING, at, "%s is missing, expected shape %s", spec->name,
                    shape_text(weights->arena, spec->shape, spec->rank));
    else if (!same_shape(spec, entry))
        shape_refuse(weights, diags, at, spec, entry);
    else if (!entry->supported)
        dtype_refuse(diags, at, entry);
    else {
        tensor->dtype = entry->dtype;
        tensor->data = file->data + entry->begin;
    }
}

/* Every tensor of the graph, then those the graph does not know. */
static bool tensors_check(Weights *weights, Diags *diags, const Safetensors *file)
{
    Place at = { .file = weights->source };
    bool good = true;
    for (int i = 0; i < weights->n_tensors && !diags_full(diags); i++) {
        tensor_check(weights, diags, &at, file, &weights->tensors[i]);
        good &= weights->tensors[i].data != NULL;
    }
    for (int i = 0; i < file->n_entries && !diags_full(diags); i++) {
        const SafetensorsEntry *entry = &file->entries[i];
        if (weights_find(weights, entry->name) >= 0)
            continue;
        diag_report(diags, DIAG_WEIGHTS_EXTRA, &at, "%s: %.20s%s is not a tensor of this graph", entry->name,
                    entry->dtype_text, shape_text(weights->arena, entry->shape, entry->rank));
        good = false;
    }
    return good;
}

/* --- opening --- */

static int name_compare(const void *a, const void *b)
{
    return strcmp(((const Name *)a)->name, ((const Name *)b)->name);
}

static Weights *weights_new(Arena *arena, const Graph *graph, const char *source)
{
    Weights *weights = arena_one(arena, Weights);
    *weights = (Weights){ .arena = arena, .source = arena_strdup(arena, source) };
    TensorSpec *specs = graph_tensors(graph, arena, &weights->n_tensors);
    size_t n = (size_t)weights->n_tensors;
    weights->tensors = arena_array(arena, Tensor, n);
    weights->names = arena_array(arena, Name, n);
    for (int i = 0; i < weights->n_tensors; i++) {
        weights->tensors[i] = (Tensor){ .spec = specs[i], .dtype = specs[i].matrix ? DTYPE_BF16 : DTYPE_F32 };
        weights->names[i] = (Name){ specs[i].name, i };
    }
    qsort(weights->names, n, sizeof *weights->names, name_compare);
    return weights;
}

/* Map the file read-only. False with errno set; 0 where errno has no word for it. */
static bool file_map(Weights *weights, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    struct stat info;
    bool good = fstat(fd, &info) == 0;
    if (good && !S_ISREG(info.st_mode)) {
        errno = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
        good = false;
    }
    if (good && info.st_size > 0) {
        void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        good = map != MAP_FAILED;
        weights->map = good ? map : NULL;
        weights->map_len = good ? (size_t)info.st_size : 0;
    }
    int error = errno;
    close(fd);
    errno = error;
    return good;
}

static bool file_open(Weights *weights, Diags *diags)
{
    if (!file_map(weights, weights->source)) {
        diag_report(diags, DIAG_FILE_READ, &(Place){ .file = weights->source }, "cannot read the weights: %s",
                    strerror(errno));
        return false;
    }
    Safetensors file;
    return safetensors_read(weights->arena, diags, weights->source, weights->map, weights->map_len, &file)
        && tensors_check(weights, diags, &file);
}

static bool seed_read(const char *text, uint64_t *seed)
{
    *seed = 0;
    for (const char *c = text; *c; c++) {
        if (*c < '0' || *c > '9' || __builtin_mul_overflow(*seed, 10, seed)
            || __builtin_add_overflow(*seed, (uint64_t)(*c - '0'), seed))
            return false;
    }
    return *text;
}

Weights *weights_open(Arena *arena, Diags *diags, const Graph *graph, const char *source)
{
    static const char prefix[] = "random:";
    const size_t prefix_len = sizeof prefix - 1;
    Weights *weights = weights_new(arena, graph, source);
    if (strncmp(source, prefix, prefix_len) == 0) {
        if (seed_read(source + prefix_len, &weights->seed))
            return weights;
        diag_report(diags, DIAG_USAGE, NULL, "\"%s\": expected random: and a decimal seed of 64 bits", source);
        return NULL;
    }
    if (file_open(weights, diags))
        return weights;
    weights_close(weights);
    return NULL;
}

void weights_close(Weights *weights)
{
    if (!weights || !weights->map)
        return;
    munmap(weights->map, weights->map_len);
    weights->map = NULL;
}

/* --- reading --- */

static const Tensor *tensor_at(const Weights *weights, int tensor)
{
    if (tensor < 0 || tensor >= weights->n_tensors)
        BUG("tensor %d of %d", tensor, weights->n_tensors);
    return &weights->tensors[tensor];
}

int weights_count(const Weights *weights)
{
    return weights->n_tensors;
}

const TensorSpec *weights_spec(const Weights *weights, int tensor)
{
    return &tensor_at(weights, tensor)->spec;
}

int weights_find(const Weights *weights, const char *name)
{
    Name wanted = { name, 0 };
    const Name *found = bsearch(&wanted, weights->names, (size_t)weights->n_tensors, sizeof wanted, name_compare);
    return found ? found->tensor : -1;
}

DType weights_dtype(const Weights *weights, int tensor)
{
    return tensor_at(weights, tensor)->dtype;
}

static void bf16_widen(const unsigned char *data, int64_t count, float *out)
{
    for (int64_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, data + 2 * i, sizeof half);
        uint32_t bits = (uint32_t)half << 16;
        memcpy(&out[i], &bits, sizeof bits);
    }
}

/* Without branches, so that it vectorises: the 2^112 scale maps f16's exponents, subnormals too. */
static void f16_widen(const unsigned char *data, int64_t count, float *out)
{
    for (int64_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, data + 2 * i, sizeof half);
        uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13, bits;
        float value;
        memcpy(&value, &magnitude, sizeof value);
        value *= 0x1p112f;
        memcpy(&bits, &value, sizeof bits);
        bits |= (half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0;
        bits |= (uint32_t)(half & 0x8000) << 16;
        memcpy(&out[i], &bits, sizeof bits);
    }
}

void weights_read(const Weights *weights, int tensor, int64_t begin, int64_t count, float *out)
{
    const Tensor *source = tensor_at(weights, tensor);
    int64_t total = tensor_spec_count(&source->spec);
    if (begin < 0 || count < 0 || begin > total || count > total - begin)
        BUG("%s: elements %lld to %lld of %lld", source->spec.name, (long long)begin,
            (long long)(begin + count), (long long)total);
    if (!source->data) {
        random_weights_read(weights->seed, &source->spec, begin, count, out);
        return;
    }
    const unsigned char *data = source->data + begin * dtype_len(source->dtype);
    switch (source->dtype) {
    case DTYPE_F32: memcpy(out, data, (size_t)count * sizeof *out); break;
    case DTYPE_BF16: bf16_widen(data, count, out); break;
    case DTYPE_F16: f16_widen(data, count, out); break;
    default: BUG("%s has dtype %s", source->spec.name, dtype_info(source->dtype)->text);
    }
}

void weights_value_error(const Weights *weights, Diags *diags, int tensor, int64_t index, float value)
{
    const TensorSpec *spec = weights_spec(weights, tensor);
    int64_t position[3];
    for (int axis = spec->rank - 1; axis >= 0; axis--) {
        position[axis] = index % spec->shape[axis];
        index /= spec->shape[axis];
    }
    diag_report(diags, DIAG_WEIGHTS_VALUE, &(Place){ .file = weights->source },
                "%s: found %g at %s, expected %s", spec->name, (double)value,
                shape_text(weights->arena, position, spec->rank), isfinite(value)
                    ? arena_printf(weights->arena, "at most %d: this target sums products in float16", F16_MOST_WEIGHT)
                    : "a finite number");
}
