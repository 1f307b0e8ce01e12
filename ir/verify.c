/* Verifier: what must hold of a module after the builder and after every pass.
 *
 * Types agree with the shape rules; every operand is defined above its use or a parameter; names are
 * unique; a block ends with its only yield, of the type of its first parameter; calls name a block of
 * their own phase; weights and states are bound once a name.
 */
#include "module.h"
#include "text.h"

#include <string.h>

typedef struct { const Module *module; const Block *block; Diags *diags; } Verifier;

static bool fail(const Verifier *v, const Op *op, const char *why)
{
    Text text = { 0 };
    if (op && (!op->n_results || op->result[0]))
        op_print(op, &text);
    Place place = { .file = v->module->name };
    diag_report(v->diags, DIAG_IR_VERIFY, &place, "@%s %s: %s%s%s", v->block->name,
                phase_text(v->block->phase), why, text.len ? " in: " : "", text.len ? text.data : "");
    text_free(&text);
    return false;
}

static bool defined_before(const Block *block, const Op *use, const Value *value)
{
    for (int i = 0; i < block->n_params; i++)
        if (block->param[i] == value)
            return true;
    for (const Op *op = block->first; op && op != use; op = op->next)
        for (int r = 0; r < op->n_results; r++)
            if (op->result[r] == value)
                return value->def == op;
    return false;
}

static bool names_unique(const Verifier *v)
{
    for (const Op *a = v->block->first; a; a = a->next)
        for (int r = 0; r < a->n_results; r++)
            for (const Op *b = a->next; b; b = b->next)
                for (int s = 0; s < b->n_results; s++)
                    if (strcmp(a->result[r]->name, b->result[s]->name) == 0)
                        return fail(v, b, "the result's name is taken");
    return true;
}

static bool verify_call(const Verifier *v, const Op *op)
{
    const Attr *name = op_attr(op, ATTR_BLOCK);
    const Block *callee = name ? module_find_block(v->module, name->str, v->block->phase) : NULL;
    if (!callee)
        return fail(v, op, "the block called does not exist in this phase");
    if (callee->n_params != op->n_operands)
        return fail(v, op, "the call does not give what the block takes");
    for (int i = 0; i < op->n_operands; i++)
        if (!op->operand[i] || !type_equal(op->operand[i]->type, callee->param[i]->type))
            return fail(v, op, "the call's types are not the block's");
    return true;
}

static bool verify_op(const Verifier *v, const Op *op)
{
    for (int i = 0; i < op->n_operands; i++)
        if (op->operand[i] && !defined_before(v->block, op, op->operand[i]))
            return fail(v, op, "an operand is not defined above");
    if ((op->kind == OP_YIELD) != (op->next == NULL))
        return fail(v, op, "a block must end with its only yield");
    if (op->kind == OP_CALL && !verify_call(v, op))
        return false;
    if (op_info(op->kind).flags & OP_FLAG_LEAF)
        return op_attr(op, op->kind == OP_WEIGHT ? ATTR_TENSOR : ATTR_NAME)
            || fail(v, op, "a weight or state has no name");
    Type types[OP_MAX_RESULTS] = { 0 };
    Text why = { 0 };
    bool ok = op_infer(op, types, &why) || fail(v, op, why.data);
    text_free(&why);
    for (int r = 0; ok && r < op->n_results; r++)
        if (!type_equal(types[r], op->result[r]->type))
            ok = fail(v, op, "a result's type is not what its operands give");
    return ok;
}

static bool verify_block(const Verifier *v)
{
    const Block *block = v->block;
    if (!block->last || block->last->kind != OP_YIELD)
        return fail(v, NULL, "a block must end with its only yield");
    for (const Op *op = block->first; op; op = op->next)
        if (!verify_op(v, op))
            return false;
    /* A layer maps the residual stream to itself; main maps tokens to logits. */
    if (strcmp(block->name, "main") != 0
        && (!block->n_params || !type_equal(block->last->operand[0]->type, block->param[0]->type)))
        return fail(v, block->last, "a block must yield what its first parameter is");
    return names_unique(v);
}

bool module_verify(const Module *module, Diags *diags)
{
    bool ok = true;
    for (const Block *block = module->blocks; block; block = block->next)
        ok &= verify_block(&(Verifier){ module, block, diags });
    return ok;
}
