/* Manifest: what an artifact is and exports, as JSON.
 *
 * Input: a Plan and api.def. The same text lies beside a library (manifest.json), inside every
 * artifact behind MANIFEST_MARK, and comes back from moss_manifest().
 */
#include "codegen.h"

#include "../runtime/program.h"

#include <string.h>

static const struct { const char *name, *result, *arguments; } api_rows[] = {
#define API(name, result, arguments) { #name, result, arguments },
#include "api.def"
};

static const struct { const char *name; int len; } object_rows[] = {
#define OBJECT(name, len) { #name, len },
#include "api.def"
};

/* "tokens:i32[n_tokens]" -> {"name": "tokens", "type": "pointer", "dtype": "i32", "shape": ["n_tokens"]} */
static void write_argument(Text *out, const char *argument, size_t len)
{
    size_t name_len = (size_t)((const char *)memchr(argument, ':', len) - argument);
    const char *type = argument + name_len + 1;
    size_t type_len = len - name_len - 1;
    const char *shape = memchr(type, '[', type_len);
    text_printf(out, "{\"name\": \"%.*s\", \"type\": ", (int)name_len, argument);
    if (strncmp(type, "ptr:", 4) == 0) {
        text_printf(out, "\"pointer\", \"object\": \"%.*s\"}", (int)type_len - 4, type + 4);
    } else if (shape) {
        text_printf(out, "\"pointer\", \"dtype\": \"%.*s\", \"shape\": [", (int)(shape - type), type);
        for (const char *dim = shape + 1; *dim != ']';) {
            size_t dim_len = strcspn(dim, ",]");
            text_printf(out, "%s\"%.*s\"", dim == shape + 1 ? "" : ", ", (int)dim_len, dim);
            dim += dim_len + (dim[dim_len] == ',');
        }
        text_printf(out, "]}");
    } else {
        text_printf(out, "\"%.*s\"}", (int)type_len, type);
    }
}

static void write_function(Text *out, const char *prefix, int row)
{
    text_printf(out, "    {\"name\": \"%s_%s\", \"result\": \"%s\", \"arguments\": [", prefix, api_rows[row].name,
                api_rows[row].result);
    for (const char *a = api_rows[row].arguments; *a;) {
        size_t len = strcspn(a, " ");
        if (a != api_rows[row].arguments)
            text_printf(out, ", ");
        write_argument(out, a, len);
        a += len + (a[len] == ' ');
    }
    text_printf(out, "]}");
}

static void write_mode(Text *out, const Plan *plan, int m)
{
    const Cost *d = &plan->decode_cost[m], *p = &plan->prefill_cost[m];
    text_printf(out, "    {\"experts_per_token\": %lld, \"active_params\": %lld,\n"
                     "     \"decode\": {\"flops\": %.0f, \"weight_bytes\": %.0f, \"state_bytes\": %.0f},\n"
                     "     \"prefill\": {\"flops\": %.0f, \"weight_bytes\": %.0f, \"state_bytes\": %.0f}}",
                (long long)plan->graph->mode_top_k[m], (long long)graph_active_params(plan->graph, m), d->flops,
                d->weight_bytes, d->state_bytes, p->flops, p->weight_bytes, p->state_bytes);
}

/* What the caller's memory must be, where no function tells. */
static void write_objects(Text *out)
{
    text_printf(out, "  \"align\": %d, \"objects\": {", MOSS_ALIGN);
    for (size_t i = 0; i < sizeof object_rows / sizeof *object_rows; i++)
        text_printf(out, "%s\"%s\": %d", i ? ", " : "", object_rows[i].name, object_rows[i].len);
    text_printf(out, "},\n");
}

void codegen_write_manifest(const Plan *plan, const char *prefix, Text *out)
{
    const Target *target = target_info(plan->target);
    text_printf(out, "{\n  \"format\": \"mossc-manifest/1\",\n  \"name\": ");
    text_json_string(out, plan->graph->name);
    text_printf(out, ",\n  \"target\": \"%s\", \"features\": \"%s\", \"quant\": \"%s\", \"abi\": %d,\n", target->name,
                target->features, plan->quant, MOSS_ABI);
    text_printf(out, "  \"model_hash\": \"%016llx\",\n", (unsigned long long)plan->hash);
    text_printf(out, "  \"vocab_size\": %lld, \"d_model\": %lld, \"layers\": %d, \"chunk\": %d, \"params\": %lld,\n",
                (long long)plan->graph->vocab_size, (long long)plan->graph->d_model, plan->n_layers, plan->chunk,
                (long long)graph_total_params(plan->graph));
    text_printf(out, "  \"memory\": {\"weights\": %lld, \"state\": %lld, \"window\": %lld, \"state_per_context_token\": %lld,\n"
                     "    \"scratch_shared\": %lld, \"scratch_per_thread\": %lld",
                (long long)plan->weights_len, (long long)plan->state_len, (long long)plan->window_len,
                (long long)plan->state_token_len,
                (long long)plan->shared_len, (long long)plan->private_len);
    if (plan->logits_len)
        text_printf(out, ", \"logits\": %lld", (long long)plan->logits_len);
    text_printf(out, "},\n");
    text_printf(out, "  \"context_flops\": %.0f,\n  \"modes\": [\n", plan->context_flops);
    for (int m = 0; m < plan->graph->n_modes; m++) {
        write_mode(out, plan, m);
        text_printf(out, "%s", m + 1 < plan->graph->n_modes ? ",\n" : "\n");
    }
    text_printf(out, "  ],\n");
    write_objects(out);
    text_printf(out, "  \"functions\": [\n");
    int n = (int)(sizeof api_rows / sizeof *api_rows);
    for (int i = 0; i < n; i++) {
        write_function(out, prefix, i);
        text_printf(out, "%s", i + 1 < n ? ",\n" : "\n");
    }
    text_printf(out, "  ]\n}\n");
}
