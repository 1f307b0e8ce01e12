/* Kernel keys: printed from types and attributes. */
#include "kernel_key.h"

#include "product.h"

/* Experts a token, of each mode. */
static void print_top_k(const Op *router, Text *out)
{
    const Attr *top_k = op_attr(router, ATTR_TOP_K);
    for (int i = 0; top_k && i < top_k->ints.n; i++)
        text_printf(out, "%s%lld", i ? "," : " top_k=", (long long)top_k->ints.at[i]);
}

static void print_product(const Op *op, Phase phase, Text *out)
{
    const Product p = product_of(op);
    const Value *weight = p.weight, *y = op->result[0];
    bool quantised = p.x->type.dtype == DTYPE_Q8;
    int code = product_weight_code(weight);
    text_printf(out, "%s%s n_in=%lld n_out=%lld n_experts=%d dtype=%s%s in_pairs=%d out_pairs=%d has_bias=%d "
                "accumulate=%d",
                phase == PHASE_DECODE ? "gemv" : "gemm", quantised ? "_q" : "", (long long)p.x->type.dim[1].n,
                (long long)y->type.dim[1].n, p.n_experts, dtype_info(weight->type.dtype)->text, code == 5 ? "-pairs" : code == 6 ? "-sums" : "",
                p.in_pairs, p.out_pairs, p.bias != NULL, p.accumulate);
    if (p.experts)
        print_top_k(p.experts->def, out);
}

static void print_router(const Op *op, Text *out)
{
    const bool norms = op->kind == OP_RMS_NORM_ROUTE;
    const Type router = op->operand[norms ? 2 : 1]->type;
    text_printf(out, "%s n_in=%lld n_experts=%lld renormalize=%lld", norms ? "rms_norm_route" : "route",
                (long long)router.dim[1].n, (long long)router.dim[0].n, (long long)op_int(op, ATTR_RENORMALIZE, 0));
    print_top_k(op, out);
}

bool kernel_key_print(const Op *op, Phase phase, Text *out)
{
    if (op_is_product(op)) {
        /* The head's rows are the few whose logits are wanted: nothing to gain in prefill. */
        if (phase == PHASE_PREFILL && op->result[0]->type.dim[0].sym == SYM_R)
            return false;
        print_product(op, phase, out);
        return true;
    }
    if (op->kind == OP_SCAN && phase == PHASE_PREFILL) {
        text_printf(out, "scan n_channels=%lld d_state=%lld zoh=%lld", (long long)op->operand[0]->type.dim[1].n,
                    (long long)op->operand[3]->type.dim[1].n, (long long)op_int(op, ATTR_ZOH, 0));
        return true;
    }
    if ((op->kind == OP_ROUTE || op->kind == OP_RMS_NORM_ROUTE) && phase == PHASE_PREFILL) {
        print_router(op, out);
        return true;
    }
    if (op->kind != OP_ATTENTION)
        return false;
    text_printf(out, "attention n_heads=%lld n_kv_heads=%lld head_dim=%lld window=%lld", (long long)op_int(op,
        ATTR_HEADS, 1),
                (long long)op_int(op, ATTR_KV_HEADS, 1), (long long)op_int(op, ATTR_HEAD_DIM, 1),
                (long long)op_int(op, ATTR_WINDOW, 0));
    return true;
}
