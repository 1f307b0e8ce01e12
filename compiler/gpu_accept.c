/* What GPUs take: storage types and sizes that the kernels of codegen/gpu are made for. */
#include "gpu_accept.h"

#include <string.h>

enum { MAX_HEAD_DIM = 128 };

/* Experts of dt_proj are joined in one matrix, whose rows have no scale of their own an expert. */
DType gpu_dtype(const TensorSpec *spec, DType quant)
{
    size_t len = strlen(spec->name);
    static const char dt[] = "dt_proj.weight";
    bool joined = len >= sizeof dt && strcmp(spec->name + len - (sizeof dt - 1), dt) == 0 && spec->shape[0] > 1;
    return quant == DTYPE_Q8 && joined ? DTYPE_F16 : quant;
}

static bool accepts_dtypes(const Graph *graph, const DType *dtypes, TargetId target, Diags *diags)
{
    bool has[N_DTYPES] = { false };
    int n;
    Arena *scratch = arena_new();
    const TensorSpec *specs = graph_tensors(graph, scratch, &n);
    for (int i = 0; i < n; i++)
        has[dtypes[i]] |= specs[i].matrix;
    arena_free(scratch);
    if (!has[DTYPE_F32] && !(has[DTYPE_BF16] && has[DTYPE_F16]))
        return true;
    diag_report(diags, DIAG_TARGET_QUANT, NULL, "target %s computes with matrices of one type of 16 or 8 bits, the "
                "checkpoint's are %s", target_info(target)->name, has[DTYPE_F32] ? "f32" : "bf16 and f16");
    diag_note(diags, NULL, "--quant bf16 and --quant f16 round them to %s", "16 bits, --quant q8 to 8");
    return false;
}

static bool accepts_experts(const Layer *layer, TargetId target, Diags *diags)
{
    int most = sm_shared_most(target_sm(target));
    int64_t n = layer->n_experts;
    if (layer->kind != LAYER_MAMBA || gpu_route_shared_len(1, n) <= most)
        return true;
    while (gpu_route_shared_len(1, n) > most)
        n--;
    diag_report(diags, DIAG_TARGET_GRAPH, &layer->at, "a mamba layer on target %s has at most %lld experts, found "
                "%lld", target_info(target)->name, (long long)n, (long long)layer->n_experts);
    return false;
}

static bool accepts_attention(const Layer *layer, TargetId target, Diags *diags)
{
    int64_t head_dim = layer->kind == LAYER_ATTENTION ? layer->attention.head_dim : 8;
    if (head_dim % 8 == 0 && head_dim <= MAX_HEAD_DIM)
        return true;
    diag_report(diags, DIAG_TARGET_GRAPH, &layer->at, "attention on target %s needs a head_dim that is a multiple of 8 "
                "and at most %d, found %lld", target_info(target)->name, MAX_HEAD_DIM, (long long)head_dim);
    return false;
}

bool gpu_accepts(const Graph *graph, const DType *dtypes, TargetId target, Diags *diags)
{
    bool good = !dtypes || accepts_dtypes(graph, dtypes, target, diags);
    for (int i = 0; i < graph->n_layers; i++)
        good &= accepts_attention(&graph->layers[i], target, diags) & accepts_experts(&graph->layers[i], target, diags);
    return good;
}
