/* fuse-pointwise: chains that touch each element once become one operation.
 *
 * conv1d + silu; softplus + scan + silu gate; silu * up = swiglu; rms_norm + route. A producer is
 * taken in only when the consumer is its one use, so nothing is computed twice.
 */
#include "pass.h"

/* `value` as the result of such an operation used nowhere else; NULL otherwise. */
static Op *only_use(const Block *block, const Value *value, OpKind kind)
{
    return value_is(value, kind) && value_n_uses(block, value) == 1 ? value->def : NULL;
}

static void replace(Block *block, Op *op, Value *with)
{
    value_take_over(block, with, op->result[0]);
    op_remove(block, op);
}

static void fuse_conv_silu(Block *block, Op *silu)
{
    Op *conv = only_use(block, silu->operand[0], OP_CONV1D);
    if (conv && !op_int(conv, ATTR_SILU, 0)) {
        op_set_int(conv, ATTR_SILU, 1);
        replace(block, silu, conv->result[0]);
    }
}

static void fuse_softplus_scan(Block *block, Op *scan)
{
    Op *softplus = only_use(block, scan->operand[0], OP_SOFTPLUS);
    if (softplus && !op_int(scan, ATTR_SOFTPLUS, 0)) {
        scan->operand[0] = softplus->operand[0];
        op_set_int(scan, ATTR_SOFTPLUS, 1);
        op_remove(block, softplus);
    }
}

/* mul(silu(z), scan(...)) -> scan(..., z) */
static bool fuse_scan_gate(Block *block, Op *mul)
{
    Op *silu = only_use(block, mul->operand[0], OP_SILU);
    Op *scan = only_use(block, mul->operand[1], OP_SCAN);
    if (!silu || !scan || (scan->n_operands > 6 && scan->operand[6]))
        return false;
    /* The gate must be known where the scan stands: move the scan down to the mul. */
    Value *y = scan->result[0];
    op_remove(block, scan);
    scan->prev = mul->prev;
    scan->next = mul;
    *(mul->prev ? &mul->prev->next : &block->first) = scan;
    mul->prev = scan;
    scan->operand[6] = silu->operand[0];
    scan->n_operands = 7;
    replace(block, mul, y);
    op_remove(block, silu);
    return true;
}

static void fuse_swiglu(Module *module, Block *block, Op *mul)
{
    Op *silu = only_use(block, mul->operand[0], OP_SILU);
    if (!silu)
        return;
    Value *operands[] = { silu->operand[0], mul->operand[1] };
    Op *op = op_insert(module, block, mul, OP_SWIGLU, 2, operands);
    replace(block, mul, op_finish(module, block, op, mul->result[0]->name, NULL));
    op_remove(block, silu);
}

/* Is `value` read above `op`? */
static bool read_above(const Op *op, const Value *value)
{
    while ((op = op->prev))
        for (int i = 0; i < op->n_operands; i++)
            if (op->operand[i] == value)
                return true;
    return false;
}

static void fuse_norm_route(Module *module, Block *block, Op *route)
{
    Op *norm = value_is(route->operand[0], OP_RMS_NORM) ? route->operand[0]->def : NULL;
    if (!norm || read_above(route, norm->result[0]))
        return;
    Value *operands[] = { norm->operand[0], norm->operand[1], route->operand[1] };
    Op *op = op_insert(module, block, route, OP_RMS_NORM_ROUTE, 3, operands);
    op_set_float(op, ATTR_EPS, op_attr(norm, ATTR_EPS)->number);
    const Attr *top_k = op_attr(route, ATTR_TOP_K);
    op_set_ints(op, ATTR_TOP_K, top_k->ints.at, top_k->ints.n);
    op_set_int(op, ATTR_RENORMALIZE, op_int(route, ATTR_RENORMALIZE, 0));
    op_finish(module, block, op, norm->result[0]->name, NULL);
    value_take_over(block, op->result[0], norm->result[0]);
    value_take_over(block, op->result[1], route->result[0]);
    value_take_over(block, op->result[2], route->result[1]);
    op_remove(block, route);
    op_remove(block, norm);
}

void pass_fuse_pointwise(Module *module)
{
    for (Block *block = module->blocks; block; block = block->next) {
        for (Op *op = block->first, *next; op; op = next) {
            next = op->next;
            switch (op->kind) {
            case OP_SILU:  fuse_conv_silu(block, op); break;
            case OP_SCAN:  fuse_softplus_scan(block, op); break;
            case OP_ROUTE: fuse_norm_route(module, block, op); break;
            case OP_MUL:
                if (!fuse_scan_gate(block, op))
                    fuse_swiglu(module, block, op);
                break;
            default: break;
            }
        }
    }
}
