/* Prediction: time of a token from the operations of its plan and the rates of a device's cores.
 *
 * Input: a plan and a device. Output: a range of tokens a second. Every operation counts for the kind of kernel that
 * does it; a kind's time is its operations over the rate llvm-mca gives its loop, times the threads, which share work
 * equally. Products wait for their weights if those come slower. The range is that of the device's shares and of what a
 * barrier costs; it is no more than a model: bench/predict.sh holds it against this machine.
 */
#include "predict.h"
#include "../ir/text.h"

enum { SHORT_PROMPT = 512 };

/* As shares of the float products' rate: attention (bench/NOTES.md), and what is neither product, scan nor attention:
 * norms, convolutions, rounding to bytes. These are a few per cent of the time; their share is a guess. */
static const double attention_rate = 0.6, rest_rate = 0.2;

/* What bench/predict.sh found. */
static const char prediction_error[] =
    "Of 16 speeds measured on an x86-64 server, with its bandwidth and clock measured too, 14 lay in such a range\n"
    "and the worst 20 % outside (bench/README.md). No phone was at hand: there the error may be larger.";

/* Of one barrier with all threads awake, for the low and the high end of a speed: 0.24 us was measured between two
 * cores of a server; between the clusters of a phone it is taken to be some us. */
static const Span barrier_seconds = { 3e-6, 0.3e-6 };

typedef struct { double operations[N_RATES], attention, rest, product_bytes, state_bytes; int n_barriers; } Work;

static RateClass product_class(const Op *op, bool decode)
{
    DType dtype = op->operand[1]->type.dtype;
    if (dtype == DTYPE_Q8)
        return decode ? RATE_GEMV_Q8 : RATE_GEMM_Q8;
    if (dtype == DTYPE_Q4)
        return decode ? RATE_GEMV_Q4 : RATE_GEMM_Q4;
    return decode ? RATE_GEMV_FLOAT : RATE_GEMM_FLOAT;
}

/* A window is full only when so many tokens came before. */
static double filled(const Op *op, double n_context)
{
    double window = (double)op_int(op, ATTR_WINDOW, 0);
    return window > n_context ? n_context / window : 1;
}

static void add_op(Work *work, const Op *op, int mode, bool decode, int64_t n_tokens, int64_t n_context)
{
    Cost cost = cost_of_op(op, mode, n_tokens, n_context);
    switch (op->kind) {
    case OP_LINEAR: case OP_EXPERT_LINEAR: case OP_EXPERT_LINEAR_COMBINE:
        work->operations[product_class(op, decode)] += cost.flops;
        work->product_bytes += cost.weight_bytes;
        break;
    case OP_SCAN:
        work->operations[RATE_SCAN] += cost.flops;
        work->state_bytes += cost.state_bytes + cost.weight_bytes;
        break;
    case OP_ATTENTION:
        work->attention += cost.flops * filled(op, (double)n_context);
        work->state_bytes += cost.state_bytes * filled(op, (double)n_context);
        break;
    default:
        work->rest += cost.flops;
        work->state_bytes += cost.state_bytes + cost.weight_bytes;
    }
}

static void add_block(Work *work, const BlockPlan *block, int mode, bool decode, int64_t n_tokens, int64_t n_context)
{
    int phase = decode ? PLAN_DECODE : PLAN_PREFILL;
    for (const Op *op = block->block[phase]->first; op; op = op->next)
        add_op(work, op, mode, decode, n_tokens, n_context);
    work->n_barriers += block->schedule[phase].n_phases;
}

/* Of one token, n_tokens of which share a chunk, n_context tokens before it in the mean. */
static Work work_of(const Plan *plan, int mode, bool decode, int64_t n_tokens, int64_t n_context)
{
    Work work = { 0 };
    add_block(&work, plan->main, mode, decode, n_tokens, n_context);
    for (int i = 0; i < plan->n_layers; i++)
        add_block(&work, plan->layers[i].block, mode, decode, n_tokens, n_context);
    return work;
}

typedef struct { double total, memory; } Seconds;

static Seconds seconds_of(const Work *work, const Prediction *p, double efficiency, double bandwidth, double barrier,
                          int64_t n_tokens)
{
    const Device *device = &p->device;
    double products = 0, all = device_rate(device, p->code, RATE_GEMM_FLOAT, p->n_threads);
    for (int rate = 0; rate < RATE_SCAN; rate++)
        if (work->operations[rate])
            products += work->operations[rate] / device_rate(device, p->code, (RateClass)rate, p->n_threads);
    double rest = work->attention / (attention_rate * all) + work->rest / (rest_rate * all)
        + work->operations[RATE_SCAN] / device_rate(device, p->code, RATE_SCAN, p->n_threads);
    double read = work->product_bytes / bandwidth, state = work->state_bytes / bandwidth;
    products /= efficiency, rest /= efficiency;
    double waits = p->n_threads > 1 ? work->n_barriers * barrier / (double)n_tokens : 0;
    return (Seconds){ (products > read ? products : read) + (rest > state ? rest : state) + waits, read + state };
}

static void add_row(Prediction *p, const Plan *plan, int mode, bool decode, int64_t n_context)
{
    int64_t chunk = n_context < plan->chunk ? n_context : plan->chunk, n_tokens = decode ? 1 : chunk;
    Work work = work_of(plan, mode, decode, n_tokens, decode ? n_context : n_context / 2);
    /* Of several experts any may come next, so a cache must hold all. */
    Span bandwidth = device_bandwidth(&p->device, (double)(plan->weights_len + plan->state_len), p->n_threads);
    Seconds slow = seconds_of(&work, p, p->device.efficiency.low, bandwidth.low, barrier_seconds.low, n_tokens);
    Seconds fast = seconds_of(&work, p, p->device.efficiency.high, bandwidth.high, barrier_seconds.high, n_tokens);
    p->rows[p->n_rows++] = (PredictionRow){ decode, (int)plan->graph->mode_top_k[mode], n_context,
        { 1 / slow.total, 1 / fast.total }, { slow.memory / slow.total, fast.memory / fast.total } };
}

Prediction predict_plan(const Plan *plan, const Device *device, const char *code, int n_threads, int64_t n_context)
{
    Prediction p = { .device = *device, .code = code, .n_threads = n_threads };
    for (int decode = 0; decode < 2; decode++)
        for (int mode = 0; mode < plan->graph->n_modes; mode++) {
            add_row(&p, plan, mode, decode, SHORT_PROMPT);
            if (n_context != SHORT_PROMPT)
                add_row(&p, plan, mode, decode, n_context);
        }
    return p;
}

/* ---- printing ---- */

static void print_device(const Prediction *p, int64_t memory_len, Text *out)
{
    const Device *device = &p->device;
    text_printf(out, "\nprediction, not measured: %s, %s\n  ", device->name, device->text);
    for (int c = 0; c < device->n_clusters; c++)
        text_printf(out, "%s%d x %s %.2f GHz", c ? ", " : "", device->clusters[c].n, device->clusters[c].core->name,
                    device->clusters[c].ghz);
    text_printf(out, "\n  code for %s on %d thread%s; memory moves %.1f GB/s, cores read %.0f to %.0f %% of it;\n"
                "  needs %.2f of %.0f GB%s\n", p->code, p->n_threads, p->n_threads == 1 ? "" : "s", device->gbs,
                100 * device->share.low, 100 * device->share.high, (double)memory_len / 1e9, device->ram_gb,
                (double)memory_len > 0.5e9 * device->ram_gb ? ": more than half of it, an app may not get it" : "");
}

void prediction_print(const Prediction *p, int64_t memory_len, Text *out)
{
    print_device(p, memory_len, out);
    text_printf(out, "\n%-38s %9s %9s   %s\n", "tokens/s", "low", "high", "of the memory's limit");
    for (int i = 0; i < p->n_rows; i++) {
        const PredictionRow *row = &p->rows[i];
        text_printf(out, "  %-10s top-%-4d %s %7lld tokens %9.1f %9.1f", row->decode ? "generation" : "prefill",
                    row->experts_per_token, row->decode ? "after" : "   of", (long long)row->n_context, row->tokens.low,
                    row->tokens.high);
        if (row->decode)
            text_printf(out, "   %.0f to %.0f %%", 100 * row->memory_share.low, 100 * row->memory_share.high);
        text_printf(out, "\n");
    }
    if (p->n_threads > device_cores(&p->device))
        text_printf(out, "There are %d cores: more threads take turns, and every one waits for the slowest.\n",
                    device_cores(&p->device));
    text_printf(out, "\nFrom operations and bytes as above, llvm-mca's cycles of the emitted kernels (compiler/rates.def)\n"
                "and the device's figures (compiler/devices.def), whose uncertainty is the range.\n%s\n", prediction_error);
}

void prediction_print_json(const Prediction *p, Text *out)
{
    text_printf(out, "  \"prediction\": {\"measured\": false, \"device\": \"%s\", \"code\": \"%s\", \"threads\": %d, "
                "\"bandwidth\": %.4g,\n    \"rows\": [", p->device.name, p->code, p->n_threads, p->device.gbs * 1e9);
    for (int i = 0; i < p->n_rows; i++) {
        const PredictionRow *row = &p->rows[i];
        text_printf(out, "%s\n      {\"phase\": \"%s\", \"experts_per_token\": %d, \"context\": %lld, \"low\": %.2f, "
                    "\"high\": %.2f", i ? "," : "", row->decode ? "decode" : "prefill", row->experts_per_token,
                    (long long)row->n_context,
                    row->tokens.low, row->tokens.high);
        if (row->decode)
            text_printf(out, ", \"memory_share\": [%.3f, %.3f]", row->memory_share.low, row->memory_share.high);
        text_printf(out, "}");
    }
    text_printf(out, " ] }");
}
