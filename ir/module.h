/* Module: a model as SSA over typed tensors.
 *
 * A module holds one block for each distinct layer shape and phase, and one entry for each phase that
 * calls them in order; layers of one shape share a block and differ only in the weights and state the
 * call binds. Blocks are straight-line. Text form: ir/print.c and ir/parse.c, exact inverses.
 * Invariant: ir/verify.c holds after the builder and after every pass.
 */
#ifndef MOSSC_IR_MODULE_H
#define MOSSC_IR_MODULE_H

#include "arena.h"
#include "diag.h"
#include "dtype.h"

#include <stdbool.h>
#include <stdint.h>

/* ---- types ---- */

/* A dimension is a number times one of these: 1, tokens of this call, rows of logits wanted of them,
 * tokens of context a state was made for. */
typedef enum { SYM_ONE, SYM_T, SYM_R, SYM_C } Sym;
typedef struct { int64_t n; Sym sym; } Dim;

enum { TYPE_MAX_RANK = 3 };
typedef struct { DType dtype; int rank; Dim dim[TYPE_MAX_RANK]; } Type;

bool type_equal(Type a, Type b);
Dim dim_of(int64_t n, Sym sym);
Type type_of(DType dtype, int rank, Dim a, Dim b, Dim c);

/* ---- attributes ---- */

typedef enum {
#define ATTR(id, ...) ATTR_##id,
#include "attr.def"
#undef ATTR
    N_ATTRS
} AttrId;
typedef enum { ATTR_KIND_INT, ATTR_KIND_FLOAT, ATTR_KIND_STR, ATTR_KIND_INTS } AttrKind;

enum { ATTR_MAX_INTS = 8 };
typedef struct {
    AttrId id;
    union {
        int64_t integer;
        double number;
        const char *str;
        struct { int n; int64_t at[ATTR_MAX_INTS]; } ints;
    };
} Attr;

/* ---- values, operations, blocks ---- */

typedef struct Op Op;
typedef struct Buffer Buffer;    /* plan.h */

typedef struct {
    const char *name;      /* unique in its block, without % */
    Type type;
    Op *def;               /* NULL: a parameter of the block */
    const Buffer *buffer;  /* where it lives; NULL until the planner has decided */
} Value;

typedef enum {
#define OP(id, ...) OP_##id,
#include "op.def"
#undef OP
    N_OPS
} OpKind;

enum { OP_MAX_OPERANDS = 8, OP_MAX_RESULTS = 3, OP_MAX_ATTRS = 6 };
struct Op {
    OpKind kind;
    int n_operands, n_results, n_attrs;
    Value *operand[OP_MAX_OPERANDS];     /* NULL: none */
    Value *result[OP_MAX_RESULTS];
    Attr attr[OP_MAX_ATTRS];             /* in the order of attr.def */
    Op *prev, *next;
};

typedef enum { OP_FLAG_PURE = 1, OP_FLAG_STATE = 2, OP_FLAG_LEAF = 4 } OpFlags;
typedef struct {
    const char *text;
    const char *operands;        /* names, space-separated, ? = optional */
    int min_operands, max_operands, n_results;
    OpFlags flags;
} OpInfo;
OpInfo op_info(OpKind kind);
const char *attr_text(AttrId id);
AttrKind attr_kind(AttrId id);

/* COMMON: not yet specialised. PREFILL: T tokens. DECODE: one token. */
typedef enum { PHASE_COMMON, PHASE_PREFILL, PHASE_DECODE, N_PHASES } Phase;
const char *phase_text(Phase phase);

typedef struct Block Block;
struct Block {
    const char *name;       /* "mamba0"; the entry's is "main" */
    Phase phase;
    int n_params;
    Value *param[2];
    Op *first, *last;       /* last is the yield */
    int n_values;           /* for fresh names */
    Block *next;
};

typedef struct {
    Arena *arena;
    const char *name;
    int64_t vocab_size;
    int n_modes;
    int64_t mode_top_k[ATTR_MAX_INTS];
    Block *blocks;          /* in order; entries are named "main" */
} Module;

/* ---- building ---- */

Module *module_new(Arena *arena, const char *name);
Block *module_add_block(Module *module, const char *name, Phase phase);
Block *module_find_block(const Module *module, const char *name, Phase phase);
Value *block_add_param(Module *module, Block *block, const char *name, Type type);

/* A new operation before `before` (NULL: at the end), with no attributes and no results yet. */
Op *op_insert(Module *module, Block *block, Op *before, OpKind kind, int n_operands, Value *const *operands);
void op_set_int(Op *op, AttrId id, int64_t value);
void op_set_float(Op *op, AttrId id, double value);
void op_set_str(Op *op, AttrId id, const char *value);
void op_set_ints(Op *op, AttrId id, const int64_t *values, int n);
/* Results named `name` with the suffixes of op.def, typed by the shape rule. A type error here is a bug of the
 * caller. LEAF operations take their type from `leaf`. Returns result 0. */
Value *op_finish(Module *module, Block *block, Op *op, const char *name, const Type *leaf);

/* ---- looking ---- */

const Attr *op_attr(const Op *op, AttrId id);              /* NULL: absent */
int64_t op_int(const Op *op, AttrId id, int64_t absent);
int64_t op_top_k_max(const Op *op);                        /* largest of {top_k} */
int value_n_uses(const Block *block, const Value *value);
bool value_is(const Value *value, OpKind kind);            /* defined by such an op */

/* ---- changing ---- */

void op_remove(Block *block, Op *op);
void value_replace_uses(Block *block, const Value *from, Value *to);
/* The same, for a `from` whose operation the caller removes: `to` is called like it afterwards. */
void value_take_over(Block *block, Value *to, const Value *from);
/* A copy of a block under another phase, every symbol T and R becoming 1 when `one_token`. */
Block *block_clone(Module *module, const Block *block, Phase phase, bool one_token);

/* ---- rules, text ---- */

/* Result types of `op` from its operands and attributes; false with a message in `why`. */
bool op_infer(const Op *op, Type *results, Text *why);
/* Every invariant; reports ir-verify and returns false at the first broken one of each block. */
bool module_verify(const Module *module, Diags *diags);
void module_print(const Module *module, Text *out);
void type_print(Type type, Text *out);
void op_print(const Op *op, Text *out);
/* NULL after reporting. module_print of the result equals the text, byte for byte, if it was printed. */
Module *module_parse(Arena *arena, Diags *diags, const char *file, const char *text);

#endif
