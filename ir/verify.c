/* Verifier: what must hold of a module after the builder and after every pass.
 *
 * Types agree with the shape rules, sizes and attributes are in range and there; every operand is defined
 * above its use or a parameter; names are unique; a block ends with its only yield, of the type of its
 * first parameter; calls name a block of their own phase; a state, and a weight's rows, are bound once.
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

/* Values of the block that are called `name`. */
static int n_named(const Block *block, const char *name)
{
    int n = 0;
    for (int i = 0; i < block->n_params; i++)
        n += strcmp(block->param[i]->name, name) == 0;
    for (const Op *op = block->first; op; op = op->next)
        for (int r = 0; r < op->n_results; r++)
            n += strcmp(op->result[r]->name, name) == 0;
    return n;
}

static bool names_unique(const Verifier *v)
{
    for (const Op *op = v->block->first; op; op = op->next)
        for (int r = 0; r < op->n_results; r++)
            if (n_named(v->block, op->result[r]->name) != 1)
                return fail(v, op, "the result's name is taken");
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

/* Sizes small enough that shape rules cannot overflow; only a state may have no rows (one tap). */
/* A state is float32, or 16 bits where keys and values are kept in them. */
static bool type_legal(Type type, bool is_state)
{
    for (int i = 0; i < type.rank; i++)
        if (type.dim[i].n > INT32_MAX || type.dim[i].n < (is_state && i == 0 ? 0 : 1))
            return false;
    bool wide = type.dtype == DTYPE_F32 || type.dtype == DTYPE_BF16 || type.dtype == DTYPE_F16;
    return is_state ? type.rank == 2 && wide : type.rank > 0;
}

/* What no rule can do without. */
static const struct { OpKind kind; AttrId attr; } required[] = {
    { OP_WEIGHT, ATTR_TENSOR }, { OP_STATE, ATTR_NAME }, { OP_RMS_NORM, ATTR_EPS }, { OP_ROUTE, ATTR_TOP_K },
    { OP_RMS_NORM_ROUTE, ATTR_EPS }, { OP_RMS_NORM_ROUTE, ATTR_TOP_K }, { OP_ROPE_TABLE, ATTR_THETA },
    { OP_GROUP, ATTR_EXPERTS }, { OP_CALL, ATTR_BLOCK },
};

static bool verify_attrs(const Verifier *v, const Op *op)
{
    for (size_t i = 0; i < sizeof required / sizeof *required; i++)
        if (required[i].kind == op->kind && !op_attr(op, required[i].attr))
            return fail(v, op, "an attribute is missing");
    for (int i = 0; i < op->n_attrs; i++) {
        const Attr *attr = &op->attr[i];
        AttrKind kind = attr_kind(attr->id);
        bool good = kind != ATTR_KIND_INT || (attr->integer >= 0 && attr->integer <= INT32_MAX);
        for (int j = 0; kind == ATTR_KIND_INTS && j < attr->ints.n; j++)
            good &= attr->ints.at[j] >= (attr->id == ATTR_TOP_K) && attr->ints.at[j] <= INT32_MAX;
        if (!good)
            return fail(v, op, "an attribute is out of range");
    }
    const Attr *rows = op_attr(op, ATTR_ROWS), *top_k = op_attr(op, ATTR_TOP_K);
    if (rows && rows->ints.n != 2)
        return fail(v, op, "rows must be two numbers");
    return !top_k || top_k->ints.n == 1 || top_k->ints.n == v->module->n_modes
        || fail(v, op, "top_k must have one number, or one a mode");
}

static bool same_rows(const Op *a, const Op *b)
{
    const Attr *p = op_attr(a, ATTR_ROWS), *q = op_attr(b, ATTR_ROWS);
    return p && q ? p->ints.at[0] == q->ints.at[0] && p->ints.at[1] == q->ints.at[1] : p == q;
}

/* Two bindings of one state would be written without knowing of each other; of one weight, could be
 * wanted in two layouts. */
static bool bound_once(const Verifier *v, const Op *op)
{
    AttrId id = op->kind == OP_STATE ? ATTR_NAME : ATTR_TENSOR;
    for (const Op *other = v->block->first; other != op; other = other->next)
        if (other->kind == op->kind && strcmp(op_attr(other, id)->str, op_attr(op, id)->str) == 0
            && (op->kind == OP_STATE || same_rows(op, other)))
            return fail(v, op, "it is bound twice");
    return true;
}

static bool verify_op(const Verifier *v, const Op *op)
{
    for (int r = 0; r < op->n_results; r++)
        if (!type_legal(op->result[r]->type, op->kind == OP_STATE))
            return fail(v, op, "a result's type is not one a value can have");
    for (int i = 0; i < op->n_operands; i++)
        if (op->operand[i] && !defined_before(v->block, op, op->operand[i]))
            return fail(v, op, "an operand is not defined above");
    if ((op->kind == OP_YIELD) != (op->next == NULL))
        return fail(v, op, "a block must end with its only yield");
    if (!verify_attrs(v, op) || (op->kind == OP_CALL && !verify_call(v, op)))
        return false;
    if (op_info(op->kind).flags & OP_FLAG_LEAF)
        return bound_once(v, op);
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
    for (int i = 0; i < block->n_params; i++)
        if (!type_legal(block->param[i]->type, false))
            return fail(v, NULL, "a parameter's type is not one a value can have");
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
