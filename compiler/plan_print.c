/* Plan as text: `--emit plan`.
 *
 * Input: a Plan. Output: header, every block with its weight and state slots and both schedules (each
 * step with the place of all it reads and writes), the layers' offsets, totals. Offsets and lengths are
 * bytes; those of a block's scratch count from where the blocks' part of the scratch begins.
 */
#include "gpu_plan.h"
#include "plan.h"

static const char *const space_rows[] = {
    "shared", "private", "weights", "state", "residual", "param", "caller", "view"
};

static const char *const phase_rows[N_PLAN_PHASES] = { "prefill", "decode" };

static void print_header(const Plan *plan, Text *out)
{
    const Tiling *t = &plan->tiling;
    text_printf(out, "plan of %s\n", plan->graph->name);
    text_printf(out, "  target   %s\n  quant    %s\n", target_info(plan->target)->name, plan->quant);
    text_printf(out, "  chunk    %d tokens\n", plan->chunk);
    if (!plan->launches)
        text_printf(out, "  tiling   panel %d columns, tile %d rows, last tiles %d rows, attention %d keys by %d tokens\n",
                    t->panel, t->tile_rows, t->tail_rows, t->key_block, t->token_block);
    text_printf(out, "  blocks   %d and main, for %d layers\n", plan->n_blocks - 1, plan->n_layers);
    text_printf(out, "  hash     %016llx\n", (unsigned long long)plan->hash);
}

/* ---- slots ---- */

static void print_weights(const BlockPlan *block, Text *out)
{
    if (block->n_weights)
        text_printf(out, "  %-26s %-7s %-5s %8s %8s %8s %12s %12s\n", "weight", "layout", "type", "experts", "out",
                    "in", "offset", "length");
    for (int i = 0; i < block->n_weights; i++) {
        const WeightSlot *w = &block->weights[i];
        Text name = { 0 };
        text_printf(&name, "%s", w->tensor);
        if (w->row_begin)
            text_printf(&name, " +%lld", (long long)w->row_begin);
        text_printf(out, "  %-26s %-7s %-5s %8lld %8lld %8lld %12lld %12lld\n", name.data, w->layout,
                    dtype_info(w->dtype)->text, (long long)w->n_experts, (long long)w->n_out, (long long)w->n_in,
                    (long long)w->offset, (long long)w->len);
        text_free(&name);
    }
}

static void print_states(const BlockPlan *block, Text *out)
{
    if (block->n_states)
        text_printf(out, "  %-26s %12s %8s %8s %12s %12s\n", "state", "rows", "columns", "stride", "offset", "length");
    for (int i = 0; i < block->n_states; i++) {
        const StateSlot *s = &block->states[i];
        if (s->n_rows)
            text_printf(out, "  %-26s %12lld %8lld %8lld %12lld %12lld\n", s->name, (long long)s->n_rows,
                        (long long)s->n_cols, (long long)s->stride, (long long)s->offset, (long long)s->len);
        else
            text_printf(out, "  %-26s %12s %8lld %8lld %9lld*ctx %9lld*ctx\n", s->name, "n_context",
                        (long long)s->n_cols, (long long)s->stride, (long long)s->token_offset,
                        (long long)s->token_len);
    }
}

/* ---- steps ---- */

/* A number, or a dash where there is none. */
static void print_cell(int64_t number, int width, bool known, Text *out)
{
    if (known)
        text_printf(out, " %*lld", width, (long long)number);
    else
        text_printf(out, " %*s", width, "-");
}

static void print_value(const char *role, const Value *value, Text *out)
{
    const Buffer *b = value->buffer;
    Text type = { 0 };
    type_print(value->type, &type);
    text_printf(out, "      %-5s %%%-24s %-22s %-9s", role, value->name, type.data, space_rows[b->space]);
    text_free(&type);
    bool placed = b->space <= SPACE_STATE, grows = b->space == SPACE_STATE && b->len == 0;
    print_cell(grows ? b->token_offset : b->offset, 12, placed, out);
    print_cell(b->len, 12, placed && !grows, out);
    print_cell(b->stride, 8, b->stride != 0, out);
    text_printf(out, "%s\n", grows ? "  offset times n_context" : "");
}

static void print_scratch(const Step *step, Text *out)
{
    if (step->scratch_offset < 0)
        return;
    text_printf(out, "      %-5s %-25s %-22s %-9s %12lld %12s %8s\n", "pack", "(packed inputs)", "", "private",
                (long long)step->scratch_offset, "-", "-");
    if (step->block_rows)
        text_printf(out, "      %-5s %lld rows packed at once%s\n", "", (long long)step->block_rows,
                    step->pack_lines ? ", in lines" : "");
    if (step->widen)
        text_printf(out, "      %-5s the first tile of a block widens its weights\n", "");
    if (step->k_block)
        text_printf(out, "      %-5s %d steps of k at once\n", "", step->k_block);
}

static void print_step(const Step *step, Text *out)
{
    const Op *op = step->op;
    if (step->barrier)
        text_printf(out, "    ---- barrier\n");
    text_printf(out, "    %3d %-8s %s", step->phase, split_text(step->split), op_info(op->kind).text);
    if (op->kind == OP_CALL)
        text_printf(out, " @%s, layer %lld", op_attr(op, ATTR_BLOCK)->str, (long long)op_int(op, ATTR_LAYER, 0));
    text_printf(out, "\n");
    for (int i = 0; i < op->n_operands; i++)
        if (op->operand[i])
            print_value(i ? "" : "in", op->operand[i], out);
    for (int r = 0; r < op->n_results; r++)
        print_value(r ? "" : "out", op->result[r], out);
    print_scratch(step, out);
    if (step->by_lanes)
        text_printf(out, "      %-5s rows by lanes\n", "");
}

static int n_barriers(const Schedule *s)
{
    int n = 0;
    for (int i = 0; i < s->n_steps; i++)
        n += s->steps[i].barrier;
    return n;
}

static void print_schedule(const BlockPlan *block, int phase, Text *out)
{
    const Schedule *s = &block->schedule[phase];
    text_printf(out, "\n  @%s %s: %d steps, %d barriers inside, shared %lld, private %lld a thread\n", block->name,
                phase_rows[phase], s->n_steps, n_barriers(s), (long long)s->shared_len, (long long)s->private_len);
    text_printf(out, "    phase, split, operation %29s %-22s %-9s %12s %12s %8s\n", "", "type", "space", "offset",
                "length", "stride");
    for (int i = 0; i < s->n_steps; i++)
        print_step(&s->steps[i], out);
}

static void print_block(const BlockPlan *block, bool scheduled, Text *out)
{
    text_printf(out, "\nblock @%s: weights %lld, state %lld", block->name, (long long)block->weights_len,
                (long long)block->state_len);
    if (block->state_token_len)
        text_printf(out, " and %lld a token of context", (long long)block->state_token_len);
    text_printf(out, "\n");
    print_weights(block, out);
    print_states(block, out);
    for (int phase = 0; phase < N_PLAN_PHASES && scheduled; phase++)
        print_schedule(block, phase, out);
}

/* ---- the model ---- */

static void print_layers(const Plan *plan, Text *out)
{
    text_printf(out, "\nlayers\n  %5s %-14s %14s %12s %14s %12s %14s\n", "layer", "block", "weights at", "length",
                "state at", "length", "* n_context at");
    for (int i = 0; i < plan->n_layers; i++) {
        const LayerPlan *layer = &plan->layers[i];
        text_printf(out, "  %5d @%-13s %14lld %12lld %14lld %12lld", i, layer->block->name,
                    (long long)layer->weights_offset, (long long)layer->block->weights_len,
                    (long long)layer->state_offset, (long long)layer->block->state_len);
        print_cell(layer->state_token_offset, 14, layer->block->state_token_len > 0, out);
        text_printf(out, "\n");
    }
}

static void print_cost(const char *phase, int64_t top_k, const Cost *cost, Text *out)
{
    text_printf(out, "  %-7s top-%-5lld %18.0f %18.0f %18.0f\n", phase, (long long)top_k, cost->flops,
                cost->weight_bytes, cost->state_bytes);
}

static void print_totals(const Plan *plan, Text *out)
{
    text_printf(out, "\ntotals\n");
    text_printf(out, "  weights             %16lld\n", (long long)plan->weights_len);
    text_printf(out, "  state               %16lld\n", (long long)plan->state_len);
    text_printf(out, "  state a token       %16lld\n", (long long)plan->state_token_len);
    text_printf(out, "  scratch, shared     %16lld\n", (long long)plan->shared_len);
    if (!plan->launches)
        text_printf(out, "  scratch, a thread   %16lld\n", (long long)plan->private_len);
    for (int phase = 0; phase < N_PLAN_PHASES && !plan->launches; phase++)
        text_printf(out, "  blocks' scratch, %-7s shared + %lld, private + %lld\n", phase_rows[phase],
                    (long long)plan->block_shared_offset[phase], (long long)plan->block_private_offset[phase]);
    text_printf(out, "\n  %-17s %18s %18s %18s\n", "a token", "FLOPs", "weight bytes", "state bytes");
    for (int mode = 0; mode < plan->graph->n_modes; mode++) {
        print_cost("decode", plan->graph->mode_top_k[mode], &plan->decode_cost[mode], out);
        print_cost("prefill", plan->graph->mode_top_k[mode], &plan->prefill_cost[mode], out);
    }
}

void plan_print(const Plan *plan, Text *out)
{
    print_header(plan, out);
    for (int i = 0; i < plan->n_blocks; i++)
        print_block(&plan->blocks[i], !plan->launches, out);
    print_layers(plan, out);
    if (plan->launches)
        gpu_print(plan, out);
    print_totals(plan, out);
}
