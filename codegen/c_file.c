/* C writer: the generated file around the kernels.
 *
 * Input: a Plan. Output: readable C17: one static function a kernel instance, one a block and phase, a
 * forward function a phase that calls the layers in order, and the moss_program table the runtime
 * links against; the table in a file of its own where there is code for several CPUs. Every buffer is
 * declared with its shape; every barrier of the plan is one line.
 */
#include "c_writer.h"
#include "codegen.h"
#include "gpu_file.h"
#include "template.h"

#include <string.h>

#define F(w, ...) text_printf(&(w)->functions, __VA_ARGS__)

/* ---- declarations at the head of a function ---- */

static const char *c_element(DType dtype)
{
    return dtype == DTYPE_I32 ? "int32_t" : dtype == DTYPE_Q8 ? "int8_t" : "float";
}

static void declare_weight(Writer *w, const Value *value)
{
    const Op *op = value->def;
    const char *layout = op_attr(op, ATTR_LAYOUT)->str;
    bool typed = strcmp(layout, "panel") != 0;
    Text type = { 0 };
    type_print(value->type, &type);
    F(w, "    const %s *const %s = %s(weights + %lld);   /* %s %s, %s */\n", typed ? "float" : "void", value->name,
      typed ? "(const float *)" : "", (long long)value->buffer->offset, op_attr(op, ATTR_TENSOR)->str, type.data,
      layout);
    text_free(&type);
}

static void declare_scratch(Writer *w, const Value *value)
{
    const Buffer *b = value->buffer;
    const char *element = c_element(value->type.dtype);
    F(w, "    %s *const %s = (%s *)(%s + %lld);   /* ", element, value->name, element,
      b->space == SPACE_SHARED ? "shared" : "own", (long long)b->offset);
    /* In decode a dimension without T counts pairs, in prefill it is a length, as of offsets. */
    if (w->phase == PLAN_PREFILL && value->type.dim[0].sym == SYM_ONE)
        F(w, "[%lld]", (long long)value->type.dim[0].n);
    else
        F(w, "[%s]", c_rows(w, value->type.dim[0]));
    if (value->type.rank == 2)
        F(w, "[%lld]", (long long)b->stride);
    F(w, " */\n");
}

/* The last n_logits rows of another value. */
static void declare_view(Writer *w, const Value *value)
{
    F(w, "    const float *const %s = %s", value->name, c_value(value->def->operand[0]));
    if (w->phase == PLAN_PREFILL)
        F(w, " + (n_tokens - n_logits) * %lld", (long long)value->buffer->stride);
    F(w, ";\n");
}

/* Names for everything the steps touch, where it lies and what shape it has. */
static void declare_values(Writer *w, const Block *block)
{
    for (const Op *op = block->first; op; op = op->next) {
        for (int r = 0; r < op->n_results && op->kind != OP_CALL; r++) {
            const Value *value = op->result[r];
            switch (value->buffer->space) {
            case SPACE_WEIGHTS: declare_weight(w, value); break;
            case SPACE_STATE:
                if (w->phase == PLAN_DECODE)      /* in prefill where it is used, one a sequence */
                    c_declare_state(w, value);
                break;
            case SPACE_SHARED: case SPACE_PRIVATE: declare_scratch(w, value); break;
            case SPACE_RESIDUAL:
                F(w, "    float *const %s = %s;   /* the residual stream, updated in place */\n", value->name,
                  block->param[0]->name);
                break;
            case SPACE_CALLER:
                F(w, "    float *const %s = run->logits;   /* [n_logits][%lld] */\n", value->name,
                  (long long)value->buffer->stride);
                break;
            case SPACE_VIEW: declare_view(w, value); break;
            case SPACE_PARAM: break;
            }
        }
    }
}

/* Each thread's part of the columns, for every number of panels that occurs. */
static void declare_panels(Writer *w, const Schedule *s)
{
    int seen[32], n_seen = 0, panel = w->plan->tiling.panel;
    for (int i = 0; i < s->n_steps; i++) {
        const Op *op = s->steps[i].op;
        if (s->steps[i].split != SPLIT_COLUMNS)
            continue;
        const Value *value = op->n_results ? op->result[0] : op->operand[0];
        int n = (int)((value->type.dim[value->type.rank - 1].n + panel - 1) / panel), j = 0;
        while (j < n_seen && seen[j] != n)
            j++;
        if (j < n_seen || n_seen == 32)
            continue;
        seen[n_seen++] = n;
        F(w, "    const moss_range panels_%d = moss_share(%d, thread, run->n_threads);\n", n, n);
    }
}

static bool any_split(const Schedule *s, Split split, bool of_logits)
{
    for (int i = 0; i < s->n_steps; i++) {
        const Op *op = s->steps[i].op;
        if (s->steps[i].split == split && op->n_results
            && (op->result[0]->type.dim[0].sym == SYM_R) == of_logits)
            return true;
    }
    return false;
}

/* Experts a token: a constant, or a choice among the modes. */
static void declare_top_k(Writer *w, const Block *block)
{
    const Attr *top_k = NULL;
    for (const Op *op = block->first; op && !top_k; op = op->next)
        top_k = op_attr(op, ATTR_TOP_K);
    if (!top_k)
        return;
    if (top_k->ints.n == 1) {
        F(w, "    enum { top_k = %lld };\n", (long long)top_k->ints.at[0]);
        return;
    }
    F(w, "    static const int mode_top_k[] = { ");
    for (int i = 0; i < top_k->ints.n; i++)
        F(w, "%s%lld", i ? ", " : "", (long long)top_k->ints.at[i]);
    F(w, " };\n    const int top_k = mode_top_k[run->mode];\n");
}

static bool has_space(const Block *block, Space space)
{
    for (const Op *op = block->first; op; op = op->next)
        for (int r = 0; r < op->n_results; r++)
            if (op->result[r]->buffer->space == space)
                return true;
    return false;
}

/* Does a step keep results or packed inputs in the thread's own scratch? */
static bool needs_own(const Block *block, const Schedule *s)
{
    for (int i = 0; i < s->n_steps; i++)
        if (s->steps[i].scratch_offset >= 0)
            return true;
    return has_space(block, SPACE_PRIVATE);
}

static bool has_rope_table(const Block *block)
{
    for (const Op *op = block->first; op; op = op->next)
        if (op->kind == OP_ROPE_TABLE)
            return true;
    return false;
}

static void declare_bases(Writer *w, const Block *block, const Schedule *s)
{
    bool main = block == w->plan->main->block[w->phase];
    long long shared = main ? 0 : w->plan->block_shared_offset[w->phase];
    long long own = main ? 0 : w->plan->block_private_offset[w->phase];
    if (w->phase == PLAN_PREFILL)
        F(w, "    const int n_tokens = run->n_tokens;\n");
    if (w->phase == PLAN_PREFILL && (has_space(block, SPACE_STATE) || has_rope_table(block)))
        F(w, "    const int length = n_tokens / run->n_sequences;   /* tokens of a sequence */\n");
    if (has_space(block, SPACE_SHARED))
        F(w, "    uint8_t *const shared = run->shared + %lld;\n", shared);
    if (needs_own(block, s))
        F(w, "    uint8_t *const own = run->private_scratch + thread * (size_t)%lld + %lld;\n",
          (long long)w->plan->private_len, own);
}

/* ---- functions ---- */

static bool has_rings(const BlockPlan *block) { return block->state_token_len > 0; }

static void write_block(Writer *w, const BlockPlan *plan)
{
    const Block *block = plan->block[w->phase];
    const Schedule *s = &plan->schedule[w->phase];
    w->block = plan;
    F(w, "/* %s, %s: %d operations, %d barriers. */\n", plan->name, phase_text(block->phase), s->n_steps, s->n_phases - 1);
    F(w, "static void %s_%s(const moss_run *run, int thread, const uint8_t *weights", plan->name,
      phase_text(block->phase));
    if (plan->n_states > 0)
        F(w, "%s", plan->state_len > 0 || !has_rings(plan) ? ", size_t state" : "");
    if (has_rings(plan))
        F(w, ", size_t rings");
    F(w, ", float *%s", block->param[0]->name);
    if (block->n_params > 1)
        F(w, ", const float *%s", block->param[1]->name);
    F(w, ")\n{\n");
    declare_bases(w, block, s);
    declare_top_k(w, block);
    declare_panels(w, s);
    if (any_split(s, SPLIT_ROWS, false))
        F(w, "    const moss_range rows = moss_share(n_tokens, thread, run->n_threads);\n");
    declare_values(w, block);
    F(w, "\n");
    for (int i = 0; i < s->n_steps; i++) {
        if (s->steps[i].barrier)
            F(w, "    moss_barrier_wait(run->barrier);\n");
        c_write_call(w, &s->steps[i]);
    }
    F(w, "    moss_barrier_wait(run->barrier);\n}\n\n");
}

static void write_layer_call(Writer *w, const Op *op)
{
    const LayerPlan *layer = &w->plan->layers[op_int(op, ATTR_LAYER, 0)];
    const BlockPlan *b = layer->block;
    F(w, "    %s_%s(run, thread, weights + %lld", b->name, phase_text(b->block[w->phase]->phase),
      (long long)layer->weights_offset);
    if (b->n_states > 0 && (b->state_len > 0 || !has_rings(b)))
        F(w, ", %lld", (long long)layer->state_offset);
    if (has_rings(b))
        F(w, ", %lld + (size_t)run->n_context * %lld", (long long)w->plan->state_len,
          (long long)layer->state_token_offset);
    F(w, ", x%s%s);\n", op->n_operands > 1 ? ", " : "", op->n_operands > 1 ? op->operand[1]->name : "");
}

static void write_main(Writer *w)
{
    const BlockPlan *plan = w->plan->main;
    const Block *block = plan->block[w->phase];
    const Schedule *s = &plan->schedule[w->phase];
    const char *phase = phase_text(block->phase);
    int after_calls = 0;      /* what follows the last layer serves the logits alone */
    for (int i = 0; i < s->n_steps; i++)
        if (s->steps[i].op->kind == OP_CALL)
            after_calls = i + 1;
    w->block = plan;
    F(w, "/* The model, %s: every thread runs this; see moss_run. */\n", phase);
    F(w, "static void model_%s(const moss_run *run, int thread)\n{\n", phase);
    F(w, "    const uint8_t *const weights = run->weights;\n");
    declare_bases(w, block, s);
    if (w->phase == PLAN_PREFILL)
        F(w, "    const int n_logits = run->n_logits;\n");
    declare_panels(w, s);
    F(w, "    const moss_range rows = moss_share(%s, thread, run->n_threads);\n",
      w->phase == PLAN_PREFILL ? "n_tokens" : "1");
    if (any_split(s, SPLIT_ROWS, true))
        F(w, "    const moss_range logit_rows = moss_share(n_logits, thread, run->n_threads);\n");
    declare_values(w, block);
    F(w, "\n");
    for (int i = 0; i < s->n_steps; i++) {
        const Step *step = &s->steps[i];
        if (step->op->kind == OP_CALL) {
            if (step->barrier)
                F(w, "    moss_barrier_wait(run->barrier);\n");
            write_layer_call(w, step->op);
            continue;
        }
        if (i == after_calls)
            F(w, "    if (run->n_logits == 0)\n        return;\n");
        if (step->barrier)
            F(w, "    moss_barrier_wait(run->barrier);\n");
        c_write_call(w, step);
    }
    F(w, "}\n\n");
}

/* ---- the program table ---- */

/* "arm-dotprod" -> moss_code_arm_dotprod */
static const char *code_name(Arena *arena, TargetId target)
{
    char *name = arena_printf(arena, "moss_code_%s", target_info(target)->name);
    for (char *c = name; *c; c++)
        *c = *c == '-' ? '_' : *c;
    return name;
}

static void write_code(Arena *arena, TargetId id, bool exported, Text *out)
{
    const Target *target = target_info(id);
    const char *name = code_name(arena, id);
    if (exported)
        text_printf(out, "extern const moss_code %s;\n", name);
    text_printf(out, "%sconst moss_code %s = { \"%s\", \"%s\", model_prefill, model_decode };\n\n",
                exported ? "" : "static ", name, target->name, target->features);
}

/* The list of the program's codes, which are defined elsewhere where there are several. */
static void write_codes(Arena *arena, TargetId target, Text *out)
{
    TargetId ids[TARGET_MAX_CODES];
    int n = target_codes(target, ids);
    for (int i = 0; i < n && n > 1; i++)
        text_printf(out, "extern const moss_code %s;\n", code_name(arena, ids[i]));
    text_printf(out, "static const moss_code *const codes[] = {");
    for (int i = 0; i < n; i++)
        text_printf(out, "%s &%s", i ? "," : "", code_name(arena, ids[i]));
    text_printf(out, " };\n\n");
}

void c_write_literal(Text *out, const char *text)
{
    text_printf(out, "    \"");
    for (const char *c = text; *c; c++) {
        if (*c == '\n')
            text_printf(out, c[1] ? "\\n\"\n    \"" : "\\n");
        else if (*c == '"' || *c == '\\')
            text_printf(out, "\\%c", *c);
        else if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e || *c == '?')
            text_printf(out, "\\%03o", (unsigned char)*c);
        else
            text_printf(out, "%c", *c);
    }
    text_printf(out, "\"");
}

static void write_modes(Text *out, const char *field, const Plan *plan, double (*get)(const Plan *, int))
{
    text_printf(out, "    .%s = { ", field);
    for (int m = 0; m < plan->graph->n_modes; m++)
        text_printf(out, "%s%.0f", m ? ", " : "", get(plan, m));
    text_printf(out, " },\n");
}

static double mode_top_k(const Plan *plan, int m) { return (double)plan->graph->mode_top_k[m]; }
static double token_flops(const Plan *plan, int m) { return plan->decode_cost[m].flops; }
static double token_bytes(const Plan *plan, int m)
{
    return plan->decode_cost[m].weight_bytes + plan->decode_cost[m].state_bytes;
}

void c_write_program(const Plan *plan, WeightSums sums, bool embedded, bool gpu, Text *out)
{
    Text manifest = { 0 };
    const Target *target = target_info(plan->target);
    codegen_write_manifest(plan, "moss", &manifest);
    text_printf(out, "static const char manifest[] =\n");
    c_write_literal(out, MANIFEST_MARK);
    text_printf(out, "\n");
    c_write_literal(out, manifest.data);
    text_printf(out, ";\n\n");
    if (embedded)
        text_printf(out, "extern const uint8_t moss_embedded_weights[];\n\n");
    text_printf(out, "const moss_program moss_program_data = {\n    .abi = MOSS_ABI,\n    .name =\n");
    c_write_literal(out, plan->graph->name);
    text_printf(out, ",\n    .target = \"%s\",\n    .features = \"%s\",\n    .quant = \"%s\",\n", target->name,
                gpu ? "" : target->features, plan->quant);
    text_printf(out, "    .manifest = manifest + %d,\n", (int)strlen(MANIFEST_MARK));
    text_printf(out, "    .vocab_size = %lld,\n    .n_modes = %d,\n", (long long)plan->graph->vocab_size,
                plan->graph->n_modes);
    write_modes(out, "mode_top_k", plan, mode_top_k);
    text_printf(out, "    .chunk = %d,\n    .full_attention = %d,\n", plan->chunk, plan->state_token_len > 0);
    text_printf(out, "    .model_hash = 0x%016llxu,\n    .weights_len = %lld,\n    .weights_checksum = 0x%016llxu,\n",
                (unsigned long long)plan->hash, (long long)plan->weights_len, (unsigned long long)sums.packed);
    text_printf(out, "    .state_hash = 0x%016llxu,\n    .weights_values = 0x%016llxu,\n", (unsigned long long)plan->state_hash,
                (unsigned long long)sums.values);
    text_printf(out, "    .embedded_weights = %s,\n", embedded ? "moss_embedded_weights" : "NULL");
    text_printf(out, "    .state_fixed_len = %lld,\n    .state_token_len = %lld,\n", (long long)plan->state_len,
                (long long)plan->state_token_len);
    /* A GPU's scratch is not the host's. */
    text_printf(out, "    .shared_len = %lld,\n    .private_len = %lld,\n", gpu ? 0 : (long long)plan->shared_len,
                (long long)plan->private_len);
    write_modes(out, "token_flops", plan, token_flops);
    write_modes(out, "token_bytes", plan, token_bytes);
    if (plan->threads)
        text_printf(out, "    .threads = %d,\n", plan->threads);
    if (plan->bind)
        text_printf(out, "    .bind = 1,\n");
    text_printf(out, "%s};\n", gpu ? "    .gpu = &gpu_program,\n"
                                : "    .codes = codes,\n    .n_codes = sizeof codes / sizeof *codes,\n");
    text_free(&manifest);
}

static void write_opening(const Plan *plan, Text *out)
{
    const Target *target = target_info(plan->target);
    text_printf(out, "/* %s, compiled by mossc for %s, matrices in %s. Generated: do not edit.\n *\n", plan->graph->name,
                target->name, plan->quant);
    text_printf(out, " * cc -std=c17 -D_GNU_SOURCE -O2 -ffp-contract=fast %s\n", target->flags);
    text_printf(out, " * Weights: %lld bytes packed, %d layers of %d shapes; chunks of %d tokens.\n */\n\n",
                (long long)plan->weights_len, plan->n_layers, plan->n_blocks - 1, plan->chunk);
    text_printf(out, "_Static_assert(LANES == %d && DOT_OFFSET == %d, \"compiled with other flags than the weights are packed for\");\n\n",
                target->lanes, target->dot_offset);
}

static void write_functions(Arena *arena, const Plan *plan, Text *out)
{
    Writer w = { .arena = arena, .plan = plan };
    template_check_all();
    for (w.phase = 0; w.phase < N_PLAN_PHASES; w.phase++) {
        for (int i = 0; i < plan->n_blocks; i++)
            if (&plan->blocks[i] != plan->main)
                write_block(&w, &plan->blocks[i]);
        write_main(&w);
    }
    write_opening(plan, out);
    text_append(out, w.kernels.data, w.kernels.len);
    text_append(out, w.functions.data, w.functions.len);
    text_free(&w.kernels);
    text_free(&w.functions);
}

void codegen_write_code(Arena *arena, const Plan *plan, Text *out)
{
    write_functions(arena, plan, out);
    write_code(arena, plan->target, true, out);
}

void codegen_write_program(Arena *arena, const Plan *plan, WeightSums sums, bool embedded, Text *out)
{
    write_codes(arena, plan->target, out);
    c_write_program(plan, sums, embedded, false, out);
}

void codegen_write_model(Arena *arena, const Plan *plan, WeightSums sums, bool embedded, Text *out)
{
    write_functions(arena, plan, out);
    write_code(arena, plan->target, false, out);
    codegen_write_program(arena, plan, sums, embedded, out);
}
