/* Module: the tables of operations and attributes, and building and changing blocks.
 *
 * All memory is the module's arena's. Operations of a block form a doubly linked list; values know
 * their definition, uses are found by walking the block (blocks are short).
 */
#include "module.h"
#include "text.h"

#include <string.h>

enum { PURE = OP_FLAG_PURE, STATE = OP_FLAG_STATE, LEAF = OP_FLAG_LEAF | OP_FLAG_PURE };

static const struct { const char *text, *operands, *results; int flags; } op_rows[N_OPS] = {
#define OP(id, text, operands, results, flags) [OP_##id] = { text, operands, results, flags },
#include "op.def"
#undef OP
};

enum { INT, FLOAT, STR, INTS };
static const struct { const char *text; int kind; } attr_rows[N_ATTRS] = {
#define ATTR(id, text, kind) [ATTR_##id] = { text, kind },
#include "attr.def"
#undef ATTR
};

static const char *const phase_rows[N_PHASES] = { "common", "prefill", "decode" };

static int count_words(const char *words)
{
    int n = 0;
    for (; *words; words += strcspn(words, " "), words += *words == ' ')
        n++;
    return n;
}

/* "%name" and the suffix of result r: `.` stands for none. */
static char *result_name(Arena *arena, OpKind kind, const char *name, int r)
{
    const char *suffix = op_rows[kind].results;
    for (; r > 0; r--)
        suffix += strcspn(suffix, " ") + 1;
    return *suffix == '.' ? arena_strdup(arena, name)
                          : arena_printf(arena, "%s%.*s", name, (int)strcspn(suffix, " "), suffix);
}

OpInfo op_info(OpKind kind)
{
    OpInfo info = { op_rows[kind].text, op_rows[kind].operands, 0, 0, count_words(op_rows[kind].results),
                    (OpFlags)op_rows[kind].flags };
    for (const char *p = info.operands; *p;) {
        size_t len = strcspn(p, " ");
        info.max_operands++;
        if (p[len - 1] != '?')
            info.min_operands = info.max_operands;
        p += len + (p[len] == ' ');
    }
    return info;
}

const char *attr_text(AttrId id) { return attr_rows[id].text; }
AttrKind attr_kind(AttrId id) { return (AttrKind)attr_rows[id].kind; }
const char *phase_text(Phase phase) { return phase_rows[phase]; }

bool type_equal(Type a, Type b)
{
    if (a.dtype != b.dtype || a.rank != b.rank)
        return false;
    for (int i = 0; i < a.rank; i++)
        if (a.dim[i].n != b.dim[i].n || a.dim[i].sym != b.dim[i].sym)
            return false;
    return true;
}

Dim dim_of(int64_t n, Sym sym) { return (Dim){ n, sym }; }

Type type_of(DType dtype, int rank, Dim a, Dim b, Dim c)
{
    return (Type){ dtype, rank, { a, b, c } };
}

/* ---- building ---- */

Module *module_new(Arena *arena, const char *name)
{
    Module *module = arena_one(arena, Module);
    module->arena = arena;
    module->name = arena_strdup(arena, name);
    return module;
}

Block *module_add_block(Module *module, const char *name, Phase phase)
{
    Block *block = arena_one(module->arena, Block);
    block->name = arena_strdup(module->arena, name);
    block->phase = phase;
    Block **end = &module->blocks;
    while (*end)
        end = &(*end)->next;
    *end = block;
    return block;
}

Block *module_find_block(const Module *module, const char *name, Phase phase)
{
    for (Block *block = module->blocks; block; block = block->next)
        if (block->phase == phase && strcmp(block->name, name) == 0)
            return block;
    return NULL;
}

static bool name_taken(const Block *block, const char *name)
{
    for (int i = 0; i < block->n_params; i++)
        if (strcmp(block->param[i]->name, name) == 0)
            return true;
    for (const Op *op = block->first; op; op = op->next)
        for (int r = 0; r < op->n_results; r++)
            if (op->result[r] && strcmp(op->result[r]->name, name) == 0)
                return true;
    return false;
}

static Value *new_value(Module *module, Block *block, const char *name, Type type, Op *def)
{
    Value *value = arena_one(module->arena, Value);
    value->name = name_taken(block, name)
        ? arena_printf(module->arena, "%s_%d", name, ++block->n_values)
        : arena_strdup(module->arena, name);
    while (name_taken(block, value->name))
        value->name = arena_printf(module->arena, "%s_%d", name, ++block->n_values);
    value->type = type;
    value->def = def;
    return value;
}

Value *block_add_param(Module *module, Block *block, const char *name, Type type)
{
    if (block->n_params == (int)(sizeof block->param / sizeof *block->param))
        BUG("block %s has too many parameters", block->name);
    Value *value = new_value(module, block, name, type, NULL);
    block->param[block->n_params++] = value;
    return value;
}

Op *op_insert(Module *module, Block *block, Op *before, OpKind kind, int n_operands, Value *const *operands)
{
    Op *op = arena_one(module->arena, Op);
    op->kind = kind;
    op->n_results = op_info(kind).n_results;
    op->n_operands = n_operands;
    for (int i = 0; i < n_operands; i++)
        op->operand[i] = operands[i];
    op->next = before;
    op->prev = before ? before->prev : block->last;
    *(op->prev ? &op->prev->next : &block->first) = op;
    *(before ? &before->prev : &block->last) = op;
    return op;
}

/* Attributes stay sorted so that equal operations print equally. */
static Attr *attr_slot(Op *op, AttrId id)
{
    int i = 0;
    while (i < op->n_attrs && op->attr[i].id < id)
        i++;
    if (i == op->n_attrs || op->attr[i].id != id) {
        if (op->n_attrs == OP_MAX_ATTRS)
            BUG("%s has too many attributes", op_info(op->kind).text);
        memmove(&op->attr[i + 1], &op->attr[i], (size_t)(op->n_attrs++ - i) * sizeof *op->attr);
    }
    op->attr[i] = (Attr){ .id = id };
    return &op->attr[i];
}

void op_set_int(Op *op, AttrId id, int64_t value) { attr_slot(op, id)->integer = value; }
void op_set_float(Op *op, AttrId id, double value) { attr_slot(op, id)->number = value; }
void op_set_str(Op *op, AttrId id, const char *value) { attr_slot(op, id)->str = value; }

void op_set_ints(Op *op, AttrId id, const int64_t *values, int n)
{
    Attr *attr = attr_slot(op, id);
    attr->ints.n = n;
    memcpy(attr->ints.at, values, (size_t)n * sizeof *values);
}

Value *op_finish(Module *module, Block *block, Op *op, const char *name, const Type *leaf)
{
    Type types[OP_MAX_RESULTS] = { 0 };
    Text why = { 0 };
    if (leaf)
        types[0] = *leaf;
    else if (!op_infer(op, types, &why))
        BUG("%s: %s", op_info(op->kind).text, why.data);
    for (int r = 0; r < op->n_results; r++)
        op->result[r] = new_value(module, block, result_name(module->arena, op->kind, name, r), types[r], op);
    return op->result[0];
}

/* ---- looking ---- */

const Attr *op_attr(const Op *op, AttrId id)
{
    for (int i = 0; i < op->n_attrs; i++)
        if (op->attr[i].id == id)
            return &op->attr[i];
    return NULL;
}

int64_t op_int(const Op *op, AttrId id, int64_t absent)
{
    const Attr *attr = op_attr(op, id);
    return attr ? attr->integer : absent;
}

int64_t op_top_k_max(const Op *op)
{
    const Attr *attr = op_attr(op, ATTR_TOP_K);
    int64_t max = 1;
    for (int i = 0; attr && i < attr->ints.n; i++)
        if (attr->ints.at[i] > max)
            max = attr->ints.at[i];
    return max;
}

int value_n_uses(const Block *block, const Value *value)
{
    int n = 0;
    for (const Op *op = block->first; op; op = op->next)
        for (int i = 0; i < op->n_operands; i++)
            n += op->operand[i] == value;
    return n;
}

bool value_is(const Value *value, OpKind kind)
{
    return value && value->def && value->def->kind == kind;
}

/* ---- changing ---- */

void op_remove(Block *block, Op *op)
{
    *(op->prev ? &op->prev->next : &block->first) = op->next;
    *(op->next ? &op->next->prev : &block->last) = op->prev;
}

void value_replace_uses(Block *block, const Value *from, Value *to)
{
    for (Op *op = block->first; op; op = op->next)
        for (int i = 0; i < op->n_operands; i++)
            if (op->operand[i] == from)
                op->operand[i] = to;
}

void value_take_over(Block *block, Value *to, const Value *from)
{
    value_replace_uses(block, from, to);
    if (from->def)
        to->name = from->name;
}

static Type one_token_type(Type type)
{
    for (int i = 0; i < type.rank; i++)
        if (type.dim[i].sym == SYM_T || type.dim[i].sym == SYM_R)
            type.dim[i].sym = SYM_ONE;
    return type;
}

static Value *clone_of(const Block *from, const Block *to, const Value *value)
{
    if (!value)
        return NULL;
    for (int i = 0; i < from->n_params; i++)
        if (from->param[i] == value)
            return to->param[i];
    Op *copy = to->first;
    for (const Op *op = from->first; op && copy; op = op->next, copy = copy->next)
        for (int r = 0; r < op->n_results; r++)
            if (op->result[r] == value)
                return copy->result[r];
    BUG("value %%%s is used before its definition", value->name);
}

Block *block_clone(Module *module, const Block *block, Phase phase, bool one_token)
{
    Block *clone = module_add_block(module, block->name, phase);
    for (int i = 0; i < block->n_params; i++) {
        Type type = block->param[i]->type;
        block_add_param(module, clone, block->param[i]->name, one_token ? one_token_type(type) : type);
    }
    for (const Op *op = block->first; op; op = op->next) {
        Value *operands[OP_MAX_OPERANDS];
        for (int i = 0; i < op->n_operands; i++)
            operands[i] = clone_of(block, clone, op->operand[i]);
        Op *copy = op_insert(module, clone, NULL, op->kind, op->n_operands, operands);
        copy->n_attrs = op->n_attrs;
        memcpy(copy->attr, op->attr, sizeof op->attr);
        for (int r = 0; r < op->n_results; r++) {
            Type type = op->result[r]->type;
            copy->result[r] = new_value(module, clone, op->result[r]->name,
                                        one_token ? one_token_type(type) : type, copy);
        }
    }
    clone->n_values = block->n_values;
    return clone;
}
