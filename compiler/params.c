/* Parameter counts of a graph, by mode and by group of layers.
 *
 * Input: a Graph. Output: a table in millions, or JSON with exact counts.
 * Invariant: the groups add up to the totals; a router counts with its layer, the final norm and
 * the head with the embedding.
 */
#include "params.h"

enum { GROUP_EMBEDDING = N_LAYER_KINDS, N_GROUPS };

typedef struct { int64_t total, active[GRAPH_MAX_MODES]; } Count;
typedef struct { Count all, groups[N_GROUPS]; int n_layers[N_GROUPS]; } Counts;

static const char *group_text(int group)
{
    return group == GROUP_EMBEDDING ? "embedding" : layer_kind_text((LayerKind)group);
}

static Counts counts_of(const Graph *graph)
{
    Counts counts = { 0 };
    Arena *scratch = arena_new();
    int n_tensors;
    const TensorSpec *specs = graph_tensors(graph, scratch, &n_tensors);
    for (int i = 0; i < n_tensors; i++) {
        const TensorSpec *spec = &specs[i];
        Count *group = &counts.groups[spec->layer < 0 ? (int)GROUP_EMBEDDING : (int)graph->layers[spec->layer].kind];
        counts.all.total += tensor_spec_count(spec);
        group->total += tensor_spec_count(spec);
        for (int mode = 0; mode < graph->n_modes; mode++) {
            counts.all.active[mode] += tensor_spec_active(graph, spec, mode);
            group->active[mode] += tensor_spec_active(graph, spec, mode);
        }
    }
    for (int i = 0; i < graph->n_layers; i++)
        counts.n_layers[graph->layers[i].kind]++;
    arena_free(scratch);
    return counts;
}

static void put_millions(Text *out, int64_t count, int decimals)
{
    text_printf(out, "  %9.*f M", decimals, (double)count / 1e6);
}

/* One decimal is what model cards print; small models need the second. */
static int decimals_for(int64_t total)
{
    return total < 100000000 ? 2 : 1;
}

/* Of a positive number in decimal. */
static int digits_of(int64_t number)
{
    return number < 10 ? 1 : 1 + digits_of(number / 10);
}

static void put_row(Text *out, const Graph *graph, const Count *count, int decimals)
{
    put_millions(out, count->total, decimals);
    for (int mode = 0; mode < graph->n_modes; mode++)
        put_millions(out, count->active[mode], decimals);
    text_printf(out, "\n");
}

static void print_table(const Graph *graph, const Counts *counts, Text *out)
{
    int decimals = decimals_for(counts->all.total);
    text_printf(out, "%s\n\n%-10s %6s  %11s  %11s\n", graph->name, "mode", "", "total", "active");
    for (int mode = 0; mode < graph->n_modes; mode++) {
        text_printf(out, "top-%-6lld %6s", (long long)graph->mode_top_k[mode], "");
        put_millions(out, counts->all.total, decimals);
        put_millions(out, counts->all.active[mode], decimals);
        text_printf(out, "\n");
    }
    text_printf(out, "\n%-10s %6s  %11s", "group", "layers", "total");
    for (int mode = 0; mode < graph->n_modes; mode++)
        text_printf(out, "  %*s%lld", 11 - digits_of(graph->mode_top_k[mode]), "top-",
                    (long long)graph->mode_top_k[mode]);
    text_printf(out, "\n");
    for (int group = 0; group < N_GROUPS; group++) {
        if (counts->groups[group].total == 0)
            continue;
        if (group == GROUP_EMBEDDING)
            text_printf(out, "%-10s %6s", group_text(group), "");
        else
            text_printf(out, "%-10s %6d", group_text(group), counts->n_layers[group]);
        put_row(out, graph, &counts->groups[group], decimals);
    }
}

static void put_json_active(Text *out, const Graph *graph, const Count *count)
{
    text_printf(out, "\"total\": %lld, \"active\": [", (long long)count->total);
    for (int mode = 0; mode < graph->n_modes; mode++)
        text_printf(out, "%s%lld", mode ? ", " : "", (long long)count->active[mode]);
    text_printf(out, "]");
}

static void print_json(const Graph *graph, const Counts *counts, Text *out)
{
    text_printf(out, "{ \"name\": ");
    text_json_string(out, graph->name);
    text_printf(out, ", \"total\": %lld,\n  \"modes\": [", (long long)counts->all.total);
    for (int mode = 0; mode < graph->n_modes; mode++)
        text_printf(out, "%s\n    { \"top_k\": %lld, \"active\": %lld }", mode ? "," : "",
                    (long long)graph->mode_top_k[mode], (long long)counts->all.active[mode]);
    text_printf(out, " ],\n  \"groups\": {");
    for (int group = 0; group < N_GROUPS; group++) {
        text_printf(out, "%s\n    \"%s\": { \"layers\": %d, ", group ? "," : "", group_text(group),
                    counts->n_layers[group]);
        put_json_active(out, graph, &counts->groups[group]);
        text_printf(out, " }");
    }
    text_printf(out, " } }\n");
}

void params_print(const Graph *graph, bool json, Text *out)
{
    Counts counts = counts_of(graph);
    if (json)
        print_json(graph, &counts, out);
    else
        print_table(graph, &counts, out);
}
