/* Golden tests of the front end: each graph file beside the text it must give.
 *
 * Input: a folder of NAME.json with NAME.expected beside each. Output: nothing, or the differences
 * and a non-zero exit code; with --update the .expected files are rewritten instead.
 * What is compared is the diagnostics of a refused file, or a dump of an accepted Graph.
 */
#include "../../compiler/graph_read.h"
#include "golden.h"

static void dump_layer(const Graph *graph, int index, Text *out)
{
    const Layer *layer = &graph->layers[index];
    text_printf(out, "layer %d %s (%d:%d %s):", index, layer_kind_text(layer->kind), layer->at.line,
                layer->at.col, layer->at.pointer);
    if (layer->kind == LAYER_MAMBA)
        text_printf(out, " d_inner %lld d_state %lld d_conv %lld dt_rank %lld", (long long)layer->mamba.d_inner,
                    (long long)layer->mamba.d_state, (long long)layer->mamba.d_conv,
                    (long long)layer->mamba.dt_rank);
    if (layer->kind == LAYER_ATTENTION) {
        text_printf(out, " heads %lld kv_heads %lld head_dim %lld window %lld rope_theta ",
                    (long long)layer->attention.n_heads, (long long)layer->attention.n_kv_heads,
                    (long long)layer->attention.head_dim, (long long)layer->attention.window);
        text_double(out, layer->attention.rope_theta);
    }
    if (layer->kind == LAYER_MLP)
        text_printf(out, " d_ff %lld", (long long)layer->mlp.d_ff);
    text_printf(out, " experts %lld %stop_k", (long long)layer->n_experts, layer->own_top_k ? "own " : "");
    for (int mode = 0; mode < graph->n_modes; mode++)
        text_printf(out, " %lld", (long long)layer->top_k[mode]);
    text_printf(out, "\n");
}

static void dump_graph(const Graph *graph, Text *out)
{
    text_printf(out, "graph %s: vocab_size %lld d_model %lld norm_eps ", graph->name,
                (long long)graph->vocab_size, (long long)graph->d_model);
    text_double(out, graph->norm_eps);
    text_printf(out, "%s%s %s\nmodes", graph->tie_embeddings ? " tied" : "",
                graph->renormalize ? " renormalize" : "",
                graph->discretization == DISCRETIZE_ZOH ? "zoh" : "euler");
    for (int mode = 0; mode < graph->n_modes; mode++)
        text_printf(out, " %lld", (long long)graph->mode_top_k[mode]);
    text_printf(out, "\n");
    for (int i = 0; i < graph->n_layers; i++)
        dump_layer(graph, i, out);
    text_printf(out, "parameters %lld, active", (long long)graph_total_params(graph));
    for (int mode = 0; mode < graph->n_modes; mode++)
        text_printf(out, " %lld", (long long)graph_active_params(graph, mode));
    text_printf(out, "\n");
}

static void run_front(const char *name, const Text *source, Text *out)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    const Graph *graph = graph_read_text(arena, diags, name, source->data, source->len);
    if (graph)
        dump_graph(graph, out);
    if (!graph && !diags_failed(diags))
        text_printf(out, "refused without a diagnostic\n");
    diags_print(diags, out);
    arena_free(arena);
}

int main(int argc, char **argv) { return golden_main(argc, argv, "front_runner", ".json", run_front); }
