/* Text form of a module, parsed. Inverse of ir/print.c.
 *
 * Accepts what print writes, with free white space and `;` comments to the end of a line. The first
 * problem of a text ends it: one ir-syntax diagnostic with its place. Types of results must be
 * stated; ir/verify.c compares them with the shape rules.
 */
#include "module.h"
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Module *module;
    Block *block;
    Diags *diags;
    const char *file, *text, *at;
    bool failed;
} Parser;

static Place place_here(const Parser *p)
{
    Place place = { .file = p->file, .line = 1, .col = 1, .text = p->text };
    for (const char *c = p->text; c < p->at; c++) {
        place.col = *c == '\n' ? 1 : place.col + 1;
        place.line += *c == '\n';
    }
    return place;
}

static bool fail(Parser *p, const char *expected)
{
    if (!p->failed) {
        Place place = place_here(p);
        int len = (int)strcspn(p->at, " \n\t,:=(){}[]");
        diag_report(p->diags, DIAG_IR_SYNTAX, &place, "found `%.*s`, expected %s",
                    len ? (len > 40 ? 40 : len) : (*p->at ? 1 : 0), p->at, expected);
    }
    p->failed = true;
    return false;
}

static void skip_space(Parser *p)
{
    for (;;) {
        p->at += strspn(p->at, " \t\r\n");
        if (*p->at != ';')
            return;
        p->at += strcspn(p->at, "\n");
    }
}

static bool peek(Parser *p, char c) { skip_space(p); return *p->at == c; }
static bool take(Parser *p, char c) { return peek(p, c) && p->at++; }

static bool expect(Parser *p, char c)
{
    const char expected[] = { '`', c, '`', 0 };
    return take(p, c) || fail(p, expected);
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
}

/* A word in the arena; NULL after reporting. */
static char *word(Parser *p, const char *expected)
{
    skip_space(p);
    size_t len = 0;
    while (is_word(p->at[len]))
        len++;
    if (!len) {
        fail(p, expected);
        return NULL;
    }
    p->at += len;
    return arena_strndup(p->module->arena, p->at - len, len);
}

static bool keyword(Parser *p, const char *text)
{
    skip_space(p);
    size_t len = strlen(text);
    if (strncmp(p->at, text, len) == 0 && !is_word(p->at[len])) {
        p->at += len;
        return true;
    }
    return fail(p, arena_printf(p->module->arena, "`%s`", text));
}

static bool integer(Parser *p, int64_t *out)
{
    skip_space(p);
    char *end;
    errno = 0;
    *out = strtoll(p->at, &end, 10);
    if (end == p->at || errno)
        return fail(p, "an integer");
    p->at = end;
    return true;
}

static bool number(Parser *p, double *out)
{
    skip_space(p);
    char *end;
    *out = strtod(p->at, &end);
    if (end == p->at)
        return fail(p, "a number");
    p->at = end;
    return true;
}

static char *string(Parser *p)
{
    if (!expect(p, '"'))
        return NULL;
    Text text = { 0 };
    while (*p->at && *p->at != '"' && *p->at != '\n') {
        char c = *p->at++;
        if (c == '\\' && *p->at == 'x') {
            char hex[3] = { p->at[1], p->at[1] ? p->at[2] : 0, 0 };
            c = (char)strtol(hex, NULL, 16);
            p->at += 1 + strlen(hex);
        } else if (c == '\\' && *p->at) {
            c = *p->at++;
        }
        text_append(&text, &c, 1);
    }
    char *copy = arena_strndup(p->module->arena, text.data ? text.data : "", text.len);
    text_free(&text);
    return expect(p, '"') ? copy : NULL;
}

static bool ints(Parser *p, int64_t *at, int *n)
{
    *n = 0;
    if (!expect(p, '['))
        return false;
    while (!peek(p, ']')) {
        if (*n == ATTR_MAX_INTS)
            return fail(p, "at most 8 integers");
        if ((*n && !expect(p, ',')) || !integer(p, &at[*n]))
            return false;
        ++*n;
    }
    return expect(p, ']');
}

static bool dim(Parser *p, Dim *out)
{
    skip_space(p);
    *out = dim_of(1, SYM_ONE);
    bool digits = *p->at >= '0' && *p->at <= '9';
    if (digits && !integer(p, &out->n))
        return false;
    switch (*p->at) {
    case 'T': out->sym = SYM_T; break;
    case 'R': out->sym = SYM_R; break;
    case 'C': out->sym = SYM_C; break;
    default: return digits || fail(p, "a dimension such as 64, T or 3T");
    }
    p->at++;
    return true;
}

static bool type(Parser *p, Type *out)
{
    *out = (Type){ 0 };
    const char *name = word(p, "a type such as f32[T, 64]");
    if (!name)
        return false;
    if (!dtype_from_text(name, &out->dtype)) {
        p->at -= strlen(name);
        return fail(p, "an element type such as f32");
    }
    if (!expect(p, '['))
        return false;
    while (!peek(p, ']')) {
        if (out->rank == TYPE_MAX_RANK)
            return fail(p, "at most 3 dimensions");
        if ((out->rank && !expect(p, ',')) || !dim(p, &out->dim[out->rank]))
            return false;
        out->rank++;
    }
    return expect(p, ']');
}

static bool attribute(Parser *p, Op *op)
{
    const char *name = word(p, "an attribute");
    if (!name || !expect(p, '='))
        return false;
    AttrId id = 0;
    while (id < N_ATTRS && strcmp(attr_text(id), name) != 0)
        id++;
    if (id == N_ATTRS)
        return fail(p, arena_printf(p->module->arena, "the value of a known attribute (`%s` is none)", name));
    int64_t at[ATTR_MAX_INTS];
    double value;
    const char *str;
    int n;
    if (op->n_attrs == OP_MAX_ATTRS && !op_attr(op, id))
        return fail(p, "at most 6 attributes");
    switch (attr_kind(id)) {
    case ATTR_KIND_INT:
        if (!integer(p, &at[0]))
            return false;
        op_set_int(op, id, at[0]);
        return true;
    case ATTR_KIND_FLOAT:
        if (!number(p, &value))
            return false;
        op_set_float(op, id, value);
        return true;
    case ATTR_KIND_STR:
        if (!(str = string(p)))
            return false;
        op_set_str(op, id, str);
        return true;
    case ATTR_KIND_INTS:
        if (!ints(p, at, &n))
            return false;
        op_set_ints(op, id, at, n);
        return true;
    }
    return false;
}

static Value *find_value(const Block *block, const char *name)
{
    for (int i = 0; i < block->n_params; i++)
        if (strcmp(block->param[i]->name, name) == 0)
            return block->param[i];
    for (const Op *op = block->first; op; op = op->next)
        for (int r = 0; r < op->n_results; r++)
            if (op->result[r] && strcmp(op->result[r]->name, name) == 0)
                return op->result[r];
    return NULL;
}

static bool operand(Parser *p, Value **out)
{
    *out = NULL;
    if (peek(p, 'n'))
        return keyword(p, "none");
    if (!expect(p, '%'))
        return false;
    const char *name = word(p, "a value's name");
    if (!name)
        return false;
    *out = find_value(p->block, name);
    p->at -= *out ? 0 : strlen(name);
    return *out || fail(p, "a value defined above");
}

/* The value a result gets, with its name reserved before its type is known. */
static bool result_name(Parser *p, const char **name)
{
    if (!expect(p, '%') || !(*name = word(p, "a value's name")))
        return false;
    return !find_value(p->block, *name) || (p->at -= strlen(*name), fail(p, "a name that is not taken"));
}

static bool operation(Parser *p)
{
    const char *names[OP_MAX_RESULTS];
    int n_results = 0;
    if (peek(p, '%')) {
        do {
            if (n_results == OP_MAX_RESULTS)
                return fail(p, "at most 3 results");
            if (!result_name(p, &names[n_results++]))
                return false;
            for (int i = 0; i + 1 < n_results; i++) {
                if (strcmp(names[i], names[n_results - 1]) == 0) {
                    p->at -= strlen(names[i]);
                    return fail(p, "a name that is not taken");
                }
            }
        } while (take(p, ','));
        if (!expect(p, '='))
            return false;
    }
    const char *name = word(p, "an operation");
    if (!name)
        return false;
    OpKind kind = 0;
    while (kind < N_OPS && strcmp(op_info(kind).text, name) != 0)
        kind++;
    if (kind == N_OPS || op_info(kind).n_results != n_results) {
        p->at -= strlen(name);
        return fail(p, kind == N_OPS ? "an operation" : "as many results as the operation has");
    }
    Value *operands[OP_MAX_OPERANDS];
    int n_operands = 0;
    while (peek(p, '%') || (n_operands ? peek(p, ',') : peek(p, 'n'))) {
        if (n_operands == OP_MAX_OPERANDS)
            return fail(p, "at most 8 operands");
        if ((n_operands && !expect(p, ',')) || !operand(p, &operands[n_operands]))
            return false;
        n_operands++;
        if (!peek(p, ','))
            break;
    }
    Op *op = op_insert(p->module, p->block, NULL, kind, n_operands, operands);
    if (take(p, '{')) {
        do {
            if (!attribute(p, op))
                return false;
        } while (take(p, ','));
        if (!expect(p, '}'))
            return false;
    }
    for (int r = 0; r < n_results; r++) {
        Value *value = arena_one(p->module->arena, Value);
        value->name = names[r];
        value->def = op;
        if (!expect(p, r ? ',' : ':') || !type(p, &value->type))
            return false;
        op->result[r] = value;
    }
    return true;
}

static bool parameters(Parser *p)
{
    if (!expect(p, '('))
        return false;
    while (!peek(p, ')')) {
        const char *name;
        Type t;
        if (p->block->n_params == 2)
            return fail(p, "at most 2 parameters");
        if ((p->block->n_params && !expect(p, ',')) || !result_name(p, &name) || !expect(p, ':') || !type(p, &t))
            return false;
        block_add_param(p->module, p->block, name, t);
    }
    return expect(p, ')');
}

static bool block(Parser *p)
{
    if (!keyword(p, "block") || !expect(p, '@'))
        return false;
    const char *name = word(p, "the block's name");
    const char *phase_name = name ? word(p, "a phase: common, prefill or decode") : NULL;
    if (!phase_name)
        return false;
    Phase phase = 0;
    while (phase < N_PHASES && strcmp(phase_text(phase), phase_name) != 0)
        phase++;
    if (phase == N_PHASES || module_find_block(p->module, name, phase)) {
        p->at -= strlen(phase_name);
        return fail(p, phase == N_PHASES ? "a phase: common, prefill or decode" : "a block not yet defined");
    }
    p->block = module_add_block(p->module, name, phase);
    if (!parameters(p) || !expect(p, '{'))
        return false;
    while (!peek(p, '}'))
        if (!operation(p))
            return false;
    return expect(p, '}');
}

Module *module_parse(Arena *arena, Diags *diags, const char *file, const char *text)
{
    Parser p = { .module = module_new(arena, ""), .diags = diags, .file = file,
                 .text = arena_strdup(arena, text) };
    p.at = p.text;
    if (!keyword(&p, "module") || !(p.module->name = string(&p)) || !keyword(&p, "vocab")
        || !integer(&p, &p.module->vocab_size) || !keyword(&p, "modes")
        || !ints(&p, p.module->mode_top_k, &p.module->n_modes))
        return NULL;
    for (skip_space(&p); *p.at; skip_space(&p))
        if (!block(&p))
            return NULL;
    return p.module;
}
