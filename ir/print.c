/* Text form of a module, printed. Inverse of ir/parse.c.
 *
 *   module "tiny" vocab 256 modes [2, 3]
 *
 *   block @mamba0 prefill (%x: f32[T, 64]) {
 *     %norm = weight {tensor = "norm.weight"} : f32[64]
 *     %u = rms_norm %x, %norm {eps = 1e-05} : f32[T, 64]
 *     ...
 *   }
 */
#include "module.h"
#include "text.h"

static void dim_print(Dim dim, Text *out)
{
    static const char letter[] = { 0, 'T', 'R', 'C' };
    if (dim.sym == SYM_ONE)
        text_printf(out, "%lld", (long long)dim.n);
    else if (dim.n == 1)
        text_printf(out, "%c", letter[dim.sym]);
    else
        text_printf(out, "%lld%c", (long long)dim.n, letter[dim.sym]);
}

void type_print(Type type, Text *out)
{
    text_printf(out, "%s[", dtype_info(type.dtype)->text);
    for (int i = 0; i < type.rank; i++) {
        if (i)
            text_printf(out, ", ");
        dim_print(type.dim[i], out);
    }
    text_printf(out, "]");
}

static void string_print(const char *str, Text *out)
{
    text_printf(out, "\"");
    for (; *str; str++) {
        unsigned char c = (unsigned char)*str;
        if (c == '"' || c == '\\')
            text_printf(out, "\\%c", c);
        else if (c < 0x20)
            text_printf(out, "\\x%02x", c);
        else
            text_printf(out, "%c", c);
    }
    text_printf(out, "\"");
}

static void ints_print(const int64_t *at, int n, Text *out)
{
    text_printf(out, "[");
    for (int i = 0; i < n; i++)
        text_printf(out, "%s%lld", i ? ", " : "", (long long)at[i]);
    text_printf(out, "]");
}

static void attr_print(const Attr *attr, Text *out)
{
    text_printf(out, "%s = ", attr_text(attr->id));
    switch (attr_kind(attr->id)) {
    case ATTR_KIND_INT:   text_printf(out, "%lld", (long long)attr->integer); break;
    case ATTR_KIND_FLOAT: text_double(out, attr->number); break;
    case ATTR_KIND_STR:   string_print(attr->str, out); break;
    case ATTR_KIND_INTS:  ints_print(attr->ints.at, attr->ints.n, out); break;
    }
}

void op_print(const Op *op, Text *out)
{
    for (int r = 0; r < op->n_results; r++)
        text_printf(out, "%s%%%s", r ? ", " : "", op->result[r]->name);
    text_printf(out, "%s%s", op->n_results ? " = " : "", op_info(op->kind).text);
    for (int i = 0; i < op->n_operands; i++) {
        text_printf(out, "%s", i ? ", " : " ");
        if (op->operand[i])
            text_printf(out, "%%%s", op->operand[i]->name);
        else
            text_printf(out, "none");
    }
    if (op->n_attrs) {
        text_printf(out, " {");
        for (int i = 0; i < op->n_attrs; i++) {
            text_printf(out, "%s", i ? ", " : "");
            attr_print(&op->attr[i], out);
        }
        text_printf(out, "}");
    }
    for (int r = 0; r < op->n_results; r++) {
        text_printf(out, "%s", r ? ", " : " : ");
        type_print(op->result[r]->type, out);
    }
}

static void block_print(const Block *block, Text *out)
{
    text_printf(out, "\nblock @%s %s (", block->name, phase_text(block->phase));
    for (int i = 0; i < block->n_params; i++) {
        text_printf(out, "%s%%%s: ", i ? ", " : "", block->param[i]->name);
        type_print(block->param[i]->type, out);
    }
    text_printf(out, ") {\n");
    for (const Op *op = block->first; op; op = op->next) {
        text_printf(out, "  ");
        op_print(op, out);
        text_printf(out, "\n");
    }
    text_printf(out, "}\n");
}

void module_print(const Module *module, Text *out)
{
    text_printf(out, "module ");
    string_print(module->name, out);
    text_printf(out, " vocab %lld modes ", (long long)module->vocab_size);
    ints_print(module->mode_top_k, module->n_modes, out);
    text_printf(out, "\n");
    for (const Block *block = module->blocks; block; block = block->next)
        block_print(block, out);
}
