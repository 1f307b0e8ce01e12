/* Inspection: parameters, memory, costs and roofline of a model.
 *
 * Input: a Plan, or the manifest an artifact carries. Output: tables, or JSON with stable keys.
 * The file is mapped read-only and may be anything: every number of the manifest is checked for its
 * range before it is used. Costs are those of compiler/cost.c.
 */
#include "inspect.h"
#include "json.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_NUMBER ((double)GRAPH_MAX_PARAMS)      /* exact in a double */
enum { MAX_MANIFEST_LEN = 1 << 20 };

/* ---- from a plan ---- */

Inspection inspect_plan(const Plan *plan)
{
    const Graph *graph = plan->graph;
    Inspection in = { .name = graph->name, .target = target_info(plan->target)->name, .quant = plan->quant,
                      .d_model = graph->d_model, .n_layers = plan->n_layers, .chunk = plan->chunk,
                      .params = graph_total_params(graph), .sizes = plan_memory_sizes(plan),
                      .context_flops = plan->context_flops, .n_modes = graph->n_modes };
    for (int m = 0; m < graph->n_modes; m++)
        in.modes[m] = (InspectionMode){ graph->mode_top_k[m], graph_active_params(graph, m), plan->decode_cost[m],
                                        plan->prefill_cost[m] };
    return in;
}

/* ---- from a manifest ---- */

typedef struct {
    Arena *arena;
    Diags *diags;
    const char *path;
    bool failed;
} Reader;

static bool refuse(Reader *r, const char *what)
{
    if (!r->failed)
        diag_report(r->diags, DIAG_ARTIFACT_FORMAT, &(Place){ .file = r->path }, "%s", what);
    r->failed = true;
    return false;
}

static const cJSON *member(Reader *r, const cJSON *object, const char *key, bool optional)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!value && !optional)
        refuse(r, arena_printf(r->arena, "the manifest inside has no \"%s\"", key));
    return value;
}

static double number_of(Reader *r, const cJSON *value, const char *key, double least)
{
    if (!value)
        return 0;
    if (cJSON_IsNumber(value) && value->valuedouble >= least && value->valuedouble <= MAX_NUMBER)
        return value->valuedouble;
    refuse(r, arena_printf(r->arena, "the manifest inside: \"%s\" must be a number from %.0f to 2^52", key, least));
    return least;
}

static double number(Reader *r, const cJSON *object, const char *key, double least)
{
    return number_of(r, member(r, object, key, false), key, least);
}

static int64_t whole(Reader *r, const cJSON *object, const char *key, double least)
{
    double value = number(r, object, key, least);
    if (value != (double)(int64_t)value)
        refuse(r, arena_printf(r->arena, "the manifest inside: \"%s\" must be a whole number", key));
    return (int64_t)value;
}

static const char *string(Reader *r, const cJSON *object, const char *key)
{
    const cJSON *value = member(r, object, key, false);
    if (value && !cJSON_IsString(value))
        refuse(r, arena_printf(r->arena, "the manifest inside: \"%s\" must be a string", key));
    return r->failed ? "" : arena_strdup(r->arena, value->valuestring);
}

static Cost read_cost(Reader *r, const cJSON *mode, const char *key)
{
    const cJSON *cost = member(r, mode, key, false);
    return (Cost){ number(r, cost, "flops", 0), number(r, cost, "weight_bytes", 0), number(r, cost, "state_bytes", 0) };
}

static void read_modes(Reader *r, const cJSON *root, Inspection *out)
{
    const cJSON *modes = member(r, root, "modes", false);
    int n = cJSON_GetArraySize(modes);
    if (!cJSON_IsArray(modes) || n < 1 || n > GRAPH_MAX_MODES) {
        refuse(r, "the manifest inside: \"modes\" must be a list of 1 to 8");
        return;
    }
    const cJSON *mode;
    cJSON_ArrayForEach(mode, modes)
        out->modes[out->n_modes++] = (InspectionMode){
            whole(r, mode, "experts_per_token", 1), whole(r, mode, "active_params", 1),
            read_cost(r, mode, "decode"), read_cost(r, mode, "prefill") };
}

static void read_manifest(Reader *r, const cJSON *root, Inspection *out)
{
    const cJSON *memory = member(r, root, "memory", false);
    *out = (Inspection){ .name = string(r, root, "name"), .target = string(r, root, "target"),
                         .quant = string(r, root, "quant"), .d_model = whole(r, root, "d_model", 1),
                         .n_layers = whole(r, root, "layers", 1), .chunk = whole(r, root, "chunk", 1),
                         .params = whole(r, root, "params", 1) };
    out->sizes = (MemorySizes){ .weights_len = whole(r, memory, "weights", 1), .state_len = whole(r, memory, "state", 0),
                                .state_token_len = whole(r, memory, "state_per_context_token", 0),
                                .shared_len = whole(r, memory, "scratch_shared", 0),
                                .private_len = whole(r, memory, "scratch_per_thread", 0),
                                .vocab_size = whole(r, root, "vocab_size", 1) };
    /* Not in the first manifests, or not for every target. */
    out->sizes.logits_len = (int64_t)number_of(r, member(r, memory, "logits", true), "logits", 0);
    out->sizes.window_len = (int64_t)number_of(r, member(r, memory, "window", true), "window", 0);
    out->context_flops = number_of(r, member(r, root, "context_flops", true), "context_flops", 0);
    if (out->sizes.window_len > out->sizes.state_len)
        refuse(r, "the manifest inside: \"window\" is more than \"state\"");
    read_modes(r, root, out);
}

/* The manifest's text in the file: from '{' behind the mark to the NUL that ends it. */
static const char *find_manifest(Reader *r, const char *bytes, size_t len, const char *mark, size_t *found_len)
{
    size_t mark_len = strlen(mark);
    const char *end = bytes + len, *at = bytes;
    while ((at = memmem(at, (size_t)(end - at), mark, mark_len))) {
        at += mark_len;
        if (at < end && *at == '{')
            break;
    }
    if (!at) {
        refuse(r, "not an artifact of mossc: there is no manifest in it");
        return NULL;
    }
    const char *nul = memchr(at, 0, (size_t)(end - at));
    if (!nul || nul - at > MAX_MANIFEST_LEN) {
        refuse(r, "the file is truncated: the manifest in it has no end");
        return NULL;
    }
    *found_len = (size_t)(nul - at);
    return at;
}

static void read_bytes(Reader *r, const char *bytes, size_t len, const char *mark, Inspection *out)
{
    size_t text_len = 0;
    const char *text = find_manifest(r, bytes, len, mark, &text_len);
    if (!text)
        return;
    /* Its places would be of a text nobody sees: say only that it is damaged. */
    Json *json = json_parse(r->arena, diags_new(r->arena), r->path, text, text_len, MAX_MANIFEST_LEN);
    if (!json) {
        refuse(r, "the manifest inside is damaged: it is not JSON");
        return;
    }
    read_manifest(r, json_root(json), out);
    json_free(json);
}

bool inspect_artifact(Arena *arena, Diags *diags, const char *path, const char *mark, Inspection *out)
{
    Reader r = { .arena = arena, .diags = diags, .path = path };
    struct stat info;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    bool known = file >= 0 && fstat(file, &info) == 0;
    if (known && S_ISDIR(info.st_mode)) {
        errno = EISDIR;
        known = false;
    }
    if (!known) {
        diag_report(diags, DIAG_FILE_READ, &(Place){ .file = path }, "cannot read: %s", strerror(errno));
        if (file >= 0)
            close(file);
        return false;
    }
    size_t len = S_ISREG(info.st_mode) ? (size_t)info.st_size : 0;
    char *bytes = len ? mmap(NULL, len, PROT_READ, MAP_PRIVATE, file, 0) : NULL;
    if (!len)
        refuse(&r, "not an artifact of mossc: the file is empty");
    else if (bytes == MAP_FAILED)
        diag_report(diags, DIAG_FILE_READ, &(Place){ .file = path }, "cannot map: %s", strerror(errno));
    else
        read_bytes(&r, bytes, len, mark, out);
    close(file);
    if (!len || bytes == MAP_FAILED)
        return false;
    munmap(bytes, len);
    return !r.failed;
}

/* ---- what follows ---- */

/* The phase's cost of one token behind n_context others. */
static Cost cost_at(const Inspection *in, const InspectionMode *mode, bool decode, int64_t n_context)
{
    Cost cost = decode ? mode->decode : mode->prefill;
    double tokens = decode ? 1 : (double)in->chunk;      /* that share one reading of keys and values */
    cost.flops += in->context_flops * (double)n_context;
    cost.state_bytes += (double)in->sizes.state_token_len * (double)n_context / tokens;
    return cost;
}

static double bytes_of(const Cost *cost) { return cost->weight_bytes + cost->state_bytes; }

/* What bounds are told for: processors, and GPUs from an older one to an H200 as measured. */
enum { N_BANDWIDTHS = 5, N_FLOP_RATES = 4 };
typedef struct { double bandwidths[N_BANDWIDTHS], flop_rates[N_FLOP_RATES]; } Rates;

static const Rates cpu_rates = { { 10e9, 40e9, 60e9, 100e9, 1700e9 }, { 100e9, 1e12, 10e12, 300e12 } };
static const Rates gpu_rates = { { 900e9, 1700e9, 2000e9, 3300e9, 4600e9 }, { 125e12, 250e12, 650e12, 990e12 } };

static bool is_gpu(const Inspection *in)
{
    TargetId target;
    return target_from_name(in->target, &target) && target_sm(target) != 0;
}

static const Rates *rates_of(const Inspection *in) { return is_gpu(in) ? &gpu_rates : &cpu_rates; }

typedef struct { const char *key, *text; int64_t len; } MemoryRow;
enum { N_MEMORY_ROWS = 8 };

static void memory_rows(const PlanMemory *m, MemoryRow rows[N_MEMORY_ROWS])
{
    const MemoryRow filled[N_MEMORY_ROWS] = {
        { "weights", "weights", m->weights },
        { "state", "state of mamba layers", m->state },
        { "window", "keys and values", m->window },
        { "shared", "scratch, shared", m->shared },
        { "private", "scratch, all threads", m->private_all },
        { "logits", "logits and sampler", m->logits },
        { "program", "program (an estimate)", m->program },
        { "total", "total", m->total },
    };
    memcpy(rows, filled, sizeof filled);
}

/* ---- text ---- */

static void print_memory(const Inspection *in, int64_t n_context, int n_threads, Text *out)
{
    PlanMemory memory = memory_of_sizes(&in->sizes, n_context, n_threads);
    MemoryRow rows[N_MEMORY_ROWS];
    memory_rows(&memory, rows);
    if (is_gpu(in))
        text_printf(out, "\nmemory of the device, one state, context %lld\n", (long long)n_context);
    else
        text_printf(out, "\nmemory, context %lld, %d thread%s\n", (long long)n_context, n_threads,
                    n_threads == 1 ? "" : "s");
    for (int i = 0; i < N_MEMORY_ROWS; i++)
        if (rows[i].len || !is_gpu(in))
            text_printf(out, "  %-24s %16lld bytes %12.2f MB\n", rows[i].text, (long long)rows[i].len,
                        (double)rows[i].len / 1e6);
}

static void print_cost(const char *phase, const InspectionMode *mode, const Cost *cost, Text *out)
{
    text_printf(out, "  %-8s top-%-4lld %16.0f %16.0f %16.0f %12.2f\n", phase, (long long)mode->experts_per_token,
                cost->flops, cost->weight_bytes, cost->state_bytes, cost->flops / bytes_of(cost));
}

static void print_costs(const Inspection *in, int64_t n_context, Text *out)
{
    text_printf(out, "\n%-19s %16s %16s %16s %12s\n", "a token", "FLOPs", "weight bytes", "state bytes", "FLOPs/byte");
    for (int phase = 0; phase < 2; phase++) {
        for (int m = 0; m < in->n_modes; m++) {
            Cost cost = cost_at(in, &in->modes[m], phase == 0, n_context);
            print_cost(phase ? "prefill" : "decode", &in->modes[m], &cost, out);
        }
    }
}

static void print_bounds(const Inspection *in, int64_t n_context, Text *out)
{
    const double *bandwidths = rates_of(in)->bandwidths, *flop_rates = rates_of(in)->flop_rates;
    text_printf(out, "\n%-19s", "decode, tokens/s");
    for (int i = 0; i < N_BANDWIDTHS; i++)
        text_printf(out, " %6.0f GB/s", bandwidths[i] / 1e9);
    for (int m = 0; m < in->n_modes; m++) {
        Cost cost = cost_at(in, &in->modes[m], true, n_context);
        text_printf(out, "\n  at most  top-%-4lld", (long long)in->modes[m].experts_per_token);
        for (int i = 0; i < N_BANDWIDTHS; i++)
            text_printf(out, " %11.1f", bandwidths[i] / bytes_of(&cost));
    }
    text_printf(out, "\n\n%-19s", "prefill, tokens/s");
    for (int i = 0; i < N_FLOP_RATES; i++)
        text_printf(out, " %7g %cFLOP/s", flop_rates[i] / (flop_rates[i] < 1e12 ? 1e9 : 1e12),
                    flop_rates[i] < 1e12 ? 'G' : 'T');
    for (int m = 0; m < in->n_modes; m++) {
        Cost cost = cost_at(in, &in->modes[m], false, n_context);
        text_printf(out, "\n  at most  top-%-4lld", (long long)in->modes[m].experts_per_token);
        for (int i = 0; i < N_FLOP_RATES; i++)
            text_printf(out, " %15.1f", flop_rates[i] / cost.flops);
    }
    text_printf(out, "\n");
}

static void print_assumptions(const Inspection *in, Text *out)
{
    text_printf(out,
        "\nAssumed: batch 1. Decode reads the chosen experts and all other weights once a token, and its state;\n"
        "nothing stays in cache, so a model smaller than the cache can be faster. Prefill reads weights once a\n"
        "chunk of %lld tokens and is bound by arithmetic. Attention sees its full window%s.\n",
        (long long)in->chunk, in->sizes.state_token_len ? ", or all of the context without one" : "");
    if (in->sizes.state_token_len && in->context_flops == 0)
        text_printf(out, "The manifest does not say how FLOPs grow with the context: that part is not counted.\n");
}

static void print_text(const Inspection *in, int64_t n_context, int n_threads, Text *out)
{
    text_printf(out, "%s\n  target %s, matrices in %s, %lld layers, d_model %lld, vocabulary %lld, chunks of %lld tokens\n",
                in->name, in->target, in->quant, (long long)in->n_layers, (long long)in->d_model,
                (long long)in->sizes.vocab_size, (long long)in->chunk);
    text_printf(out, "\nparameters\n  %-24s %16lld       %12.2f M\n", "total", (long long)in->params,
                (double)in->params / 1e6);
    for (int m = 0; m < in->n_modes; m++)
        text_printf(out, "  active, top-%-12lld %16lld       %12.2f M\n", (long long)in->modes[m].experts_per_token,
                    (long long)in->modes[m].active_params, (double)in->modes[m].active_params / 1e6);
    print_memory(in, n_context, n_threads, out);
    print_costs(in, n_context, out);
    print_bounds(in, n_context, out);
    print_assumptions(in, out);
    if (in->prediction)
        prediction_print(in->prediction, memory_of_sizes(&in->sizes, n_context, n_threads).total, out);
}

/* ---- JSON ---- */

static void put_string(const char *key, const char *text, Text *out)
{
    text_printf(out, "\"%s\": ", key);
    text_json_string(out, text);
}

static void put_cost(const char *key, const Cost *cost, Text *out)
{
    text_printf(out, "\"%s\": {\"flops\": %.0f, \"weight_bytes\": %.0f, \"state_bytes\": %.0f, \"flops_per_byte\": %.4f}",
                key, cost->flops, cost->weight_bytes, cost->state_bytes, cost->flops / bytes_of(cost));
}

static void put_modes(const Inspection *in, int64_t n_context, Text *out)
{
    text_printf(out, "  \"modes\": [");
    for (int m = 0; m < in->n_modes; m++) {
        Cost decode = cost_at(in, &in->modes[m], true, n_context), prefill = cost_at(in, &in->modes[m], false, n_context);
        text_printf(out, "%s\n    {\"experts_per_token\": %lld, \"active_params\": %lld,\n     ", m ? "," : "",
                    (long long)in->modes[m].experts_per_token, (long long)in->modes[m].active_params);
        put_cost("decode", &decode, out);
        text_printf(out, ",\n     ");
        put_cost("prefill", &prefill, out);
        text_printf(out, "}");
    }
    text_printf(out, "\n  ],\n");
}

/* Bounds for each rate, a list of one number a mode. */
static void put_bounds(const Inspection *in, int64_t n_context, bool decode, Text *out)
{
    int n = decode ? N_BANDWIDTHS : N_FLOP_RATES;
    for (int i = 0; i < n; i++) {
        double rate = decode ? rates_of(in)->bandwidths[i] : rates_of(in)->flop_rates[i];
        text_printf(out, "%s\n      {\"%s\": %.0f, \"tokens_per_second\": [", i ? "," : "",
                    decode ? "bytes_per_second" : "flops_per_second", rate);
        for (int m = 0; m < in->n_modes; m++) {
            Cost cost = cost_at(in, &in->modes[m], decode, n_context);
            text_printf(out, "%s%.2f", m ? ", " : "", rate / (decode ? bytes_of(&cost) : cost.flops));
        }
        text_printf(out, "]}");
    }
}

static void print_json(const Inspection *in, int64_t n_context, int n_threads, Text *out)
{
    PlanMemory memory = memory_of_sizes(&in->sizes, n_context, n_threads);
    MemoryRow rows[N_MEMORY_ROWS];
    memory_rows(&memory, rows);
    text_printf(out, "{\n  ");
    put_string("name", in->name, out);
    text_printf(out, ", ");
    put_string("target", in->target, out);
    text_printf(out, ", ");
    put_string("quant", in->quant, out);
    text_printf(out, ",\n  \"layers\": %lld, \"d_model\": %lld, \"vocab_size\": %lld, \"chunk\": %lld, \"params\": %lld,\n",
                (long long)in->n_layers, (long long)in->d_model, (long long)in->sizes.vocab_size, (long long)in->chunk,
                (long long)in->params);
    text_printf(out, "  \"context\": %lld, \"threads\": %d,\n  \"memory\": {", (long long)n_context, n_threads);
    for (int i = 0; i < N_MEMORY_ROWS; i++)
        text_printf(out, "%s\"%s\": %lld", i ? ", " : "", rows[i].key, (long long)rows[i].len);
    text_printf(out, "},\n");
    put_modes(in, n_context, out);
    text_printf(out, "  \"roofline\": {\n    \"decode\": [");
    put_bounds(in, n_context, true, out);
    text_printf(out, " ],\n    \"prefill\": [");
    put_bounds(in, n_context, false, out);
    text_printf(out, " ]\n  }%s\n", in->prediction ? "," : "");
    if (in->prediction)
        prediction_print_json(in->prediction, out);
    text_printf(out, "%s}\n", in->prediction ? "\n" : "");
}

void inspection_print(const Inspection *inspection, int64_t n_context, int n_threads, bool json, Text *out)
{
    (json ? print_json : print_text)(inspection, n_context, n_threads, out);
}
