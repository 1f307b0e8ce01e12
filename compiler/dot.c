/* Module as a graph for Graphviz: `--emit dot`.
 *
 * Input: a Module at any point of the compile. Output: one cluster a block and phase, operations as
 * nodes, values as edges; weights and states are named inside the node that uses them. In main a run of
 * calls of one block is one node. Node names follow positions, so equal modules give equal text.
 */
#include "plan.h"

#include <string.h>

/* What belongs to the mixture of experts, by its part in it. */
static const struct { OpKind kind; const char *color; } color_rows[] = {
    { OP_ROUTE, "gold" }, { OP_RMS_NORM_ROUTE, "gold" }, { OP_GROUP, "khaki" },
    { OP_EXPERT_LINEAR, "lightsalmon" }, { OP_EXPERT_LINEAR_COMBINE, "lightsalmon" }, { OP_COMBINE, "sandybrown" },
    { OP_SCAN, "lightblue" }, { OP_CONV1D, "lightcyan" }, { OP_ATTENTION, "thistle" }, { OP_RING_WRITE, "lavender" },
};

static const char *color_of(OpKind kind)
{
    for (size_t i = 0; i < sizeof color_rows / sizeof *color_rows; i++)
        if (color_rows[i].kind == kind)
            return color_rows[i].color;
    return "white";
}

static bool is_leaf(const Op *op) { return op_info(op->kind).flags & OP_FLAG_LEAF; }

/* In a label: quotes and backslashes must not end it. */
static void put_escaped(const char *text, Text *out)
{
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            text_printf(out, "\\");
        if ((unsigned char)*text >= 0x20)
            text_append(out, text, 1);
    }
}

static const char *callee(const Op *op) { return op->kind == OP_CALL ? op_attr(op, ATTR_BLOCK)->str : NULL; }

/* A call that goes on the run of the one before it: same block, fed by it. */
static bool joins_previous(const Op *op)
{
    const Op *before = callee(op) && op->operand[0] ? op->operand[0]->def : NULL;
    return before && before->kind == OP_CALL && before == op->prev && strcmp(callee(before), callee(op)) == 0;
}

static const Op *run_head(const Op *op)
{
    while (joins_previous(op))
        op = op->prev;
    return op;
}

static int run_len(const Op *op)
{
    int n = 1;
    while (op->next && joins_previous(op->next)) {
        op = op->next;
        n++;
    }
    return n;
}

/* ---- nodes ---- */

static int op_index(const Block *block, const Op *op)
{
    int i = 0;
    for (const Op *at = block->first; at != op; at = at->next)
        i++;
    return i;
}

static void put_node(const Block *block, int cluster, const Value *value, Text *out)
{
    if (value->def) {
        text_printf(out, "b%d_%d", cluster, op_index(block, run_head(value->def)));
        return;
    }
    for (int i = 0; i < block->n_params; i++)
        if (block->param[i] == value)
            text_printf(out, "b%d_param%d", cluster, i);
}

static void print_params(const Block *block, int cluster, Text *out)
{
    for (int i = 0; i < block->n_params; i++) {
        text_printf(out, "    b%d_param%d [shape=plain, label=\"%%", cluster, i);
        put_escaped(block->param[i]->name, out);
        text_printf(out, "\\n");
        type_print(block->param[i]->type, out);
        text_printf(out, "\"];\n");
    }
}

static void print_label(const Op *op, Text *out)
{
    if (callee(op)) {
        put_escaped(callee(op), out);
        if (run_len(op) > 1)
            text_printf(out, " x%d", run_len(op));
        text_printf(out, "\\nlayer %lld", (long long)op_int(op, ATTR_LAYER, 0));
        if (run_len(op) > 1)
            text_printf(out, " to %lld", (long long)op_int(op, ATTR_LAYER, 0) + run_len(op) - 1);
        return;
    }
    text_printf(out, "%s", op_info(op->kind).text);
    for (int i = 0; i < op->n_operands; i++) {
        if (!op->operand[i] || !op->operand[i]->def || !is_leaf(op->operand[i]->def))
            continue;
        text_printf(out, "\\n");
        put_escaped(op->operand[i]->name, out);
        text_printf(out, " ");
        type_print(op->operand[i]->type, out);
    }
}

static void print_node(const Block *block, int cluster, const Op *op, Text *out)
{
    text_printf(out, "    b%d_%d [label=\"", cluster, op_index(block, op));
    print_label(op, out);
    text_printf(out, "\", fillcolor=%s%s];\n", color_of(op->kind), op->kind == OP_CALL ? ", shape=box3d" : "");
}

/* An edge a value, labelled with its type; leaves are in the label already. */
static void print_edges(const Block *block, int cluster, const Op *op, Text *out)
{
    for (int i = 0; i < op->n_operands; i++) {
        const Value *value = op->operand[i];
        if (!value || (value->def && is_leaf(value->def)))
            continue;
        text_printf(out, "    ");
        put_node(block, cluster, value, out);
        text_printf(out, " -> b%d_%d [label=\"", cluster, op_index(block, op));
        type_print(value->type, out);
        text_printf(out, "\"];\n");
    }
}

static void print_block(const Block *block, int cluster, Text *out)
{
    text_printf(out, "\n  subgraph cluster_%d {\n    label=\"@", cluster);
    put_escaped(block->name, out);
    text_printf(out, " %s\";\n", phase_text(block->phase));
    print_params(block, cluster, out);
    for (const Op *op = block->first; op; op = op->next)
        if (!is_leaf(op) && run_head(op) == op)
            print_node(block, cluster, op, out);
    for (const Op *op = block->first; op; op = op->next)
        if (!is_leaf(op) && run_head(op) == op)
            print_edges(block, cluster, op, out);
    text_printf(out, "  }\n");
}

void module_print_dot(const Module *module, Text *out)
{
    text_printf(out, "digraph \"");
    put_escaped(module->name, out);
    text_printf(out, "\" {\n  label=\"");
    put_escaped(module->name, out);
    text_printf(out, "\";\n  node [shape=box, style=\"filled,rounded\", fillcolor=white, fontname=\"sans-serif\"];\n"
                     "  edge [fontname=\"sans-serif\", fontsize=9];\n");
    int cluster = 0;
    for (const Block *block = module->blocks; block; block = block->next)
        print_block(block, cluster++, out);
    text_printf(out, "}\n");
}
