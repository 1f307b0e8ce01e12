/* IR: print and parse are inverses on every model, before and after each pass; parse errors and their
 * places; every rule of the verifier and of the shapes; damaged texts are refused, never crash.
 */
#include <string.h>

#include "models.h"

#include <stdlib.h>

/* ---- print, parse ---- */

/* print -> parse -> print gives the same text, and what was parsed holds. */
static void check_text(const char *text, const char *what)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    Text again = { 0 };
    const Module *module = module_parse(arena, diags, "test", text);
    if (module) {
        module_verify(module, diags);
        module_print(module, &again);
    }
    bool good = module && !diags_failed(diags) && strcmp(text, again.data) == 0;
    CU_ASSERT_TRUE(good);
    if (!good) {
        diags_print(diags, &again);
        printf("%s:\n%s\n", what, again.data);
    }
    text_free(&again);
    arena_free(arena);
}

static void check_module(const Module *module, const char *what)
{
    Text text = { 0 };
    module_print(module, &text);
    check_text(text.data, what);
    text_free(&text);
}

static void test_every_model(void)
{
    glob_t list = models_list(45);
    for (size_t i = 0; i < list.gl_pathc; i++) {
        Arena *arena = arena_new();
        for (int family = PASS_CPU; family <= PASS_GPU; family++) {
            Module *module = models_build(arena, models_read(arena, list.gl_pathv[i]), DTYPE_F16);
            check_module(module, list.gl_pathv[i]);
            for (int p = 0; p < n_passes; p++) {
                if (!(passes[p].families & family))
                    continue;
                passes[p].run(module);
                check_module(module, passes[p].name);
            }
        }
        arena_free(arena);
    }
    globfree(&list);
}

static const char by_hand[] =
    "module \"a \\\"quoted\\\" \\\\ name\\x0a\" vocab 16 modes [2, 3]\n"
    "\n"
    "block @mlp0 prefill (%x: f32[T, 4], %table: f32[T, 2]) {\n"
    "  %norm = weight {tensor = \"norm.weight\"} : f32[4]\n"
    "  %router = weight {tensor = \"router.weight\"} : f32[3, 4]\n"
    "  %u, %e, %g = rms_norm_route %x, %norm, %router {eps = 1e-05, top_k = [2, 3], renormalize = 0} : f32[T, 4], i32[3T], f32[3T]\n"
    "  %w = weight {tensor = \"w\", rows = [4, 4], layout = \"panel\"} : bf16[3, 4, 4]\n"
    "  %slots, %offsets = group %e {experts = 3} : i32[3T], i32[4]\n"
    "  %y = expert_linear_combine %u, %w, %e, %g, none, %slots, %offsets, %x : f32[T, 4]\n"
    "  yield %y\n"
    "}\n"
    "\n"
    "block @main prefill (%tokens: i32[T]) {\n"
    "  %embed.weight = weight {tensor = \"embed.weight\"} : f32[16, 4]\n"
    "  %x = embed %tokens, %embed.weight : f32[T, 4]\n"
    "  %table = rope_table %tokens {head_dim = 2, theta = 10000} : f32[T, 2]\n"
    "  %ring = state {name = \"ring\"} : f32[C, 4]\n"
    "  %x_1 = call %x, %table {block = \"mlp0\", layer = 0} : f32[T, 4]\n"
    "  %last = last_rows %x_1 : f32[R, 4]\n"
    "  %logits = linear %last, %embed.weight : f32[R, 16]\n"
    "  yield %logits\n"
    "}\n";

static void test_by_hand(void)
{
    check_text(by_hand, "by hand");
    check_text("module \"\" vocab 0 modes []\n", "nothing");
}

/* White space and comments are free; the printed form is one. */
static void test_free_form(void)
{
    static const char text[] = "; a comment\nmodule \"m\" vocab 1 modes[1]block @b decode(%x:f32[1,2]){%y=silu%x:f32[1,2];"
                               " more\n\n\tyield   %y}";
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    Text out = { 0 };
    const Module *module = module_parse(arena, diags, "test", text);
    CU_ASSERT_PTR_NOT_NULL_FATAL(module);
    CU_ASSERT_TRUE(module_verify(module, diags));
    module_print(module, &out);
    CU_ASSERT_STRING_EQUAL(out.data, "module \"m\" vocab 1 modes [1]\n\nblock @b decode (%x: f32[1, 2]) {\n"
                                     "  %y = silu %x : f32[1, 2]\n  yield %y\n}\n");
    text_free(&out);
    arena_free(arena);
}

/* ---- what is refused ---- */

#define HEAD "module \"m\" vocab 8 modes [2]\nblock @b common (%x: f32[T, 4]) {\n"

/* The diagnostics of parsing and verifying; empty when there are none. */
static char *diagnostics(const char *text)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    Text out = { 0 };
    const Module *module = module_parse(arena, diags, "test", text);
    if (module)
        CU_ASSERT_EQUAL(module_verify(module, diags), !diags_failed(diags));
    CU_ASSERT_EQUAL(module == NULL || diags_failed(diags), diags_failed(diags));
    text_append(&out, "", 0);
    diags_print(diags, &out);
    arena_free(arena);
    return out.data;
}

static void check_refused(const char *text, const char *expected)
{
    char *found = diagnostics(text);
    bool good = strstr(found, expected) != NULL;
    CU_ASSERT_TRUE(good);
    if (!good)
        printf("\n%s\nexpected: %s\nfound: %s\n", text, expected, found);
    free(found);
}

static const struct { const char *text, *expected; } parse_errors[] = {
    { "", "test:1:1: error[ir-syntax]: found ``, expected `module`" },
    { "modul", "test:1:1: error[ir-syntax]: found `modul`, expected `module`" },
    { "module m", "test:1:8: error[ir-syntax]: found `m`, expected `\"`" },
    { "module \"m", "test:1:10: error[ir-syntax]: found ``, expected `\"`" },
    { "module \"m\" vocab x", "test:1:18: error[ir-syntax]: found `x`, expected an integer" },
    { "module \"m\" vocab 99999999999999999999 modes [1]", "expected an integer" },
    { "module \"m\" vocab 1 modes [1, 2, 3, 4, 5, 6, 7, 8, 9]", "expected at most 8 integers" },
    { "module \"m\" vocab 1 modes [1 2]", "test:1:29: error[ir-syntax]: found `2`, expected `,`" },
    { "module \"m\" vocab 1 modes [1]\nblok", "test:2:1: error[ir-syntax]: found `blok`, expected `block`" },
    { "module \"m\" vocab 1 modes [1]\nblock b", "test:2:7: error[ir-syntax]: found `b`, expected `@`" },
    { "module \"m\" vocab 1 modes [1]\nblock @b soon (", "test:2:10: error[ir-syntax]: found `soon`, expected a phase" },
    { "module \"m\" vocab 1 modes [1]\nblock @b common (%x: f33[T]", "test:2:22: error[ir-syntax]: found `f33`, expected an element type" },
    { "module \"m\" vocab 1 modes [1]\nblock @b common (%x: f32[T, q]", "expected a dimension" },
    { "module \"m\" vocab 1 modes [1]\nblock @b common (%x: f32[T, 1, 2, 3]", "expected at most 3 dimensions" },
    { "module \"m\" vocab 1 modes [1]\nblock @b common (%x: f32[T], %x: f32[T])", "test:2:31: error[ir-syntax]: found `x`, expected a name that is not taken" },
    { "module \"m\" vocab 1 modes [1]\nblock @b common (%x: f32[T], %y: f32[T], %z: f32[T])", "expected at most 2 parameters" },
    { HEAD "  yield %x\n}\nblock @b common (", "test:5:10: error[ir-syntax]: found `common`, expected a block not yet defined" },
    { HEAD "  %y = sillu %x : f32[T, 4]\n", "test:3:8: error[ir-syntax]: found `sillu`, expected an operation" },
    { HEAD "  %y, %z = silu %x : f32[T, 4]\n", "test:3:12: error[ir-syntax]: found `silu`, expected as many results" },
    { HEAD "  silu %x : f32[T, 4]\n", "test:3:3: error[ir-syntax]: found `silu`, expected as many results" },
    { HEAD "  %y = silu %z : f32[T, 4]\n", "test:3:14: error[ir-syntax]: found `z`, expected a value defined above" },
    { HEAD "  %y = silu %y : f32[T, 4]\n", "expected a value defined above" },
    { HEAD "  %x = silu %x : f32[T, 4]\n", "test:3:4: error[ir-syntax]: found `x`, expected a name that is not taken" },
    { HEAD "  %y, %y = route %x, %x : f32[T, 4]\n", "test:3:8: error[ir-syntax]: found `y`, expected a name that is not taken" },
    { HEAD "  %y = silu %x {speed = 1} : f32[T, 4]\n", "expected the value of a known attribute (`speed` is none)" },
    { HEAD "  %y = silu %x {eps = fast} : f32[T, 4]\n", "test:3:23: error[ir-syntax]: found `fast`, expected a number" },
    { HEAD "  %y = silu %x {name = 3} : f32[T, 4]\n", "expected `\"`" },
    { HEAD "  %y = silu %x, %x, %x, %x, %x, %x, %x, %x, %x : f32[T, 4]\n", "expected at most 8 operands" },
    { HEAD "  %y = silu %x f32[T, 4]\n", "test:3:16: error[ir-syntax]: found `f32`, expected `:`" },
    { HEAD "  %y = silu %x,\n  yield %y\n}", "expected `%`" },
    { HEAD "  yield %x\n", "test:4:1: error[ir-syntax]: found ``, expected" },
};

static void test_parse_errors(void)
{
    for (size_t i = 0; i < sizeof parse_errors / sizeof *parse_errors; i++)
        check_refused(parse_errors[i].text, parse_errors[i].expected);
}

#define SUM "module \"m\" vocab 8 modes [2, 3]\nblock @a common (%x: f32[T, 4]) {\n  yield %x\n}\nblock @main common (%t: i32[T]) {\n" \
            "  %w = weight {tensor = \"w\"} : f32[8, 4]\n  %x = embed %t, %w : f32[T, 4]\n"

static const struct { const char *text, *expected; } broken[] = {
    { HEAD "  %y = silu %x : f32[T, 4]\n}", "a block must end with its only yield" },
    { HEAD "}", "a block must end with its only yield" },
    { HEAD "  yield %x\n  yield %x\n}", "a block must end with its only yield in: yield %x" },
    { HEAD "  %w = weight {tensor = \"w\"} : f32[3, 4]\n  %y = linear %x, %w : f32[T, 3]\n  yield %y\n}",
      "a block must yield what its first parameter is" },
    { HEAD "  %y = silu %x : f32[T, 5]\n  yield %y\n}", "a result's type is not what its operands give in: %y = silu" },
    { HEAD "  %y = silu %x : f32[R, 4]\n  yield %y\n}", "a result's type is not what its operands give" },
    { HEAD "  %w = weight : f32[3, 4]\n  yield %x\n}", "an attribute is missing in: %w = weight" },
    { HEAD "  %s = state : f32[3, 4]\n  yield %x\n}", "an attribute is missing in: %s = state" },
    { HEAD "  %w = weight {tensor = \"w\"} : f32[4]\n  %y = rms_norm %x, %w : f32[T, 4]\n  yield %y\n}", "an attribute is missing" },
    { HEAD "  %w = weight {tensor = \"w\"} : f32[0, 4]\n  yield %x\n}", "a result's type is not one a value can have" },
    { HEAD "  %w = weight {tensor = \"w\"} : f32[]\n  yield %x\n}", "a result's type is not one a value can have" },
    { HEAD "  %w = weight {tensor = \"w\"} : f32[4294967296]\n  yield %x\n}", "a result's type is not one a value can have" },
    { HEAD "  %s = state {name = \"s\"} : q8[3, 4]\n  yield %x\n}", "a result's type is not one a value can have" },
    { HEAD "  %s = state {name = \"s\"} : f32[3]\n  yield %x\n}", "a result's type is not one a value can have" },
    { "module \"m\" vocab 8 modes [2]\nblock @b common (%x: f32[0T, 4]) {\n  yield %x\n}", "a parameter's type" },
    { HEAD "  %y = silu %x {heads = -1} : f32[T, 4]\n  yield %y\n}", "an attribute is out of range" },
    { HEAD "  %w = weight {tensor = \"w\", rows = [3]} : f32[3, 4]\n  yield %x\n}", "rows must be two numbers" },
    { HEAD "  %w = weight {tensor = \"w\"} : f32[3, 4]\n  %v = weight {tensor = \"w\"} : f32[3, 4]\n  yield %x\n}",
      "it is bound twice in: %v" },
    { HEAD "  %s = state {name = \"s\"} : f32[3, 4]\n  %t = state {name = \"s\"} : f32[3, 4]\n  yield %x\n}",
      "it is bound twice in: %t" },
    { SUM "  %y = call %x {block = \"b\", layer = 0} : f32[T, 4]\n  yield %y\n}", "the block called does not exist" },
    { SUM "  %y = call %x {layer = 0} : f32[T, 4]\n  yield %y\n}", "an attribute is missing" },
    { SUM "  %y = call %x, %x {block = \"a\", layer = 0} : f32[T, 4]\n  yield %y\n}", "does not give what the block takes" },
    { SUM "  %z = linear %x, %w : f32[T, 8]\n  %y = call %z {block = \"a\", layer = 0} : f32[T, 8]\n  yield %y\n}",
      "the call's types are not the block's" },
    { SUM "  %e, %g = route %x, %w {top_k = [1, 2, 2]} : i32[2T], f32[2T]\n  yield %x\n}", "one number, or one a mode" },
    { SUM "  %e, %g = route %x, %w {top_k = [0, 2]} : i32[2T], f32[2T]\n  yield %x\n}", "out of range" },
};

/* A call of the other phase's block. */
static const char other_phase[] =
    "module \"m\" vocab 8 modes [2]\nblock @a decode (%x: f32[1, 4]) {\n  yield %x\n}\n"
    "block @main prefill (%x: f32[1, 4]) {\n  %y = call %x {block = \"a\", layer = 0} : f32[1, 4]\n  yield %y\n}\n";

static void test_verifier(void)
{
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        check_refused(broken[i].text, broken[i].expected);
    check_refused(other_phase, "the block called does not exist in this phase");
}

/* What no text can say: the parser would refuse it. */
static void test_verifier_in_memory(void)
{
    static const char text[] = HEAD "  %a = silu %x : f32[T, 4]\n  %b = silu %a : f32[T, 4]\n  yield %b\n}";
    for (int damage = 0; damage < 4; damage++) {
        Arena *arena = arena_new();
        Diags *diags = diags_new(arena);
        Module *module = module_parse(arena, diags, "test", text);
        CU_ASSERT_PTR_NOT_NULL_FATAL(module);
        CU_ASSERT_TRUE(module_verify(module, diags));
        Op *a = module->blocks->first, *b = a->next;
        if (damage == 0)
            b->result[0]->name = "a";
        else if (damage == 1)
            b->result[0]->name = "x";
        else if (damage == 2)
            op_remove(module->blocks, a);
        else
            a->operand[0] = b->result[0];
        CU_ASSERT_FALSE(module_verify(module, diags));
        arena_free(arena);
    }
}

/* ---- shapes: what each rule refuses, as the body of a block with everything a body needs ---- */

#define VALUES "module \"m\" vocab 8 modes [2]\nblock @b common (%x: f32[T, 4], %t: i32[T]) {\n" \
    "  %w = weight {tensor = \"w\"} : f32[8, 4]\n" \
    "  %we = weight {tensor = \"we\"} : f32[3, 8, 4]\n" \
    "  %v4 = weight {tensor = \"v4\"} : f32[4]\n" \
    "  %v8 = weight {tensor = \"v8\"} : f32[8]\n" \
    "  %r = weight {tensor = \"r\"} : f32[3, 4]\n" \
    "  %a = weight {tensor = \"a\"} : f32[4, 2]\n" \
    "  %s = state {name = \"s\"} : f32[3, 4]\n" \
    "  %ring = state {name = \"ring\"} : f32[C, 4]\n" \
    "  %e, %g = route %x, %r {top_k = [2]} : i32[2T], f32[2T]\n" \
    "  %p = expert_linear %x, %we, %e : f32[2T, 8]\n" \
    "  %y = linear %x, %w : f32[T, 8]\n"

static const struct { const char *op, *expected; } shape_errors[] = {
    { "%o = embed %x, %w : f32[T, 4]", "tokens must be i32[T], found f32[T, 4]" },
    { "%o = embed %t, %v4 : f32[T, 4]", "the table must be [V, d], found f32[4]" },
    { "%o = rms_norm %t, %v4 {eps = 1} : f32[T, 4]", "an activation must be f32[rows, columns], found i32[T]" },
    { "%o = rms_norm %x, %v8 {eps = 1} : f32[T, 4]", "a vector must be f32 and as long as the rows it meets, found f32[8]" },
    { "%o, %q = route %y, %r {top_k = [1]} : i32[T], f32[T]", "the router must be [E, columns of x]" },
    { "%o, %q = route %x, %r {top_k = [4]} : i32[4T], f32[4T]", "top_k must lie in 1..E" },
    { "%o, %q, %h = rms_norm_route %x, %v8, %r {eps = 1, top_k = [1]} : f32[T, 4], i32[T], f32[T]", "as long as the rows" },
    { "%o = linear %x : f32[T, 8]", "linear takes 2 to 5 operands" },
    { "%o = linear %x, none : f32[T, 8]", "operand 2 of (x weight bias? residual? gate?) must not be none" },
    { "%o = linear %y, %w : f32[T, 8]", "inner size 8, weight has f32[8, 4]" },
    { "%o = linear %x, %we : f32[T, 8]", "inner size 4, weight has f32[3, 8, 4]" },
    { "%o = linear %x, %w, %v4 : f32[T, 8]", "a vector must be f32 and as long as the rows it meets, found f32[4]" },
    { "%o = linear %x, %w, none, %x : f32[T, 8]", "both operands must have one type" },
    { "%o = linear %x, %w, none, none, %x : f32[T, 8]", "both operands must have one type" },
    { "%o = linear %x, %w, none, %y, %y : f32[T, 8]", "a product updates a residual or a gate, not both" },
    { "%o = expert_linear %x, %we, %e, none, none, none, %y : f32[2T, 8]", "both operands must have one type" },
    { "%o = expert_linear %x, %w, %e : f32[2T, 8]", "inner size 4, weight has f32[8, 4]" },
    { "%o = expert_linear %p, %we, %e : f32[2T, 8]", "inner size 8" },
    { "%o = expert_linear %x, %we, %g : f32[2T, 8]", "the experts must be i32[k * tokens], found f32[2T]" },
    { "%o = expert_linear %x, %we, %e, %v8 : f32[2T, 8]", "the bias must be [E, out], found f32[8]" },
    { "%o = combine %y, %g : f32[T, 8]", "the gates must be f32, one a pair" },
    { "%o = combine %p, %e : f32[T, 8]", "the gates must be f32, one a pair" },
    { "%o = expert_linear_combine %x, %we, %e, %e : f32[T, 8]", "the gates must be f32, one a pair" },
    { "%o = expert_linear_combine %x, %we, %e, %g, none, none, none, %x : f32[T, 8]", "both operands must have one type" },
    { "%o, %q = group %g {experts = 3} : i32[2T], i32[4]", "the experts must be i32[k * tokens]" },
    { "%o = slice %y {begin = 4, len = 5} : f32[T, 5]", "the slice must lie inside the columns" },
    { "%o = slice %y {begin = 0} : f32[T, 8]", "the slice must lie inside the columns" },
    { "%o = conv1d %x, %a, %v4, %s : f32[T, 4]", "the state must be [taps - 1, columns of x]" },
    { "%o = conv1d %x, %w, %v4, %s : f32[T, 4]", "the filter must be [columns of x, taps]" },
    { "%o = conv1d %x, %a, %v8, %s : f32[T, 4]", "as long as the rows" },
    { "%o = softplus %t : f32[T, 4]", "an activation must be f32[rows, columns]" },
    { "%o = silu %e : f32[T, 4]", "an activation must be f32[rows, columns]" },
    { "%o = mul %x, %y : f32[T, 4]", "both operands must have one type, found f32[T, 8]" },
    { "%o = add %y, %p : f32[T, 8]", "both operands must have one type, found f32[2T, 8]" },
    { "%o = quantize %t : q8[T, 4]", "an activation must be f32[rows, columns]" },
    { "%o = swiglu %x, %y : f32[T, 4]", "both operands must have one type" },
    { "%o = swiglu_pairs %t : f32[T, 4]", "an activation must be f32[rows, columns]" },
    { "%o = scan %x, %y, %x, %a, %v4, %s : f32[T, 4]", "both operands must have one type" },
    { "%o = scan %x, %x, %x, %w, %v4, %s : f32[T, 4]", "A_log must be [columns of x, d_state]" },
    { "%o = scan %x, %x, %y, %a, %v4, %s : f32[T, 4]", "B and C must be [rows, 2 * d_state]" },
    { "%o = scan %x, %x, %x, %a, %v4, %s : f32[T, 4]", "the state must be [d_state, columns of x], found f32[3, 4]" },
    { "%o = scan %x, %x, %x, %a, %v8, %s : f32[T, 4]", "as long as the rows" },
    { "%o = rope_table %t {head_dim = 3, theta = 10} : f32[T, 3]", "rotation needs tokens [T] and an even head_dim" },
    { "%o = rope %x, %y {heads = 2, head_dim = 2} : f32[T, 4]", "the table must be [rows, head_dim]" },
    { "%o = rope %x, %x {heads = 3, head_dim = 2} : f32[T, 4]", "the columns must be heads * head_dim" },
    { "%o = attention %x, %x, %x, %s, %s {heads = 1, kv_heads = 1, head_dim = 4, window = 0} : f32[T, 4]", "a ring must be [window, columns of k]" },
    { "%o = attention %x, %x, %y, %ring, %ring {heads = 1, kv_heads = 1, head_dim = 4, window = 0} : f32[T, 4]", "both operands must have one type" },
    { "%o = attention %x, %x, %x, %ring, %ring {heads = 3, kv_heads = 1, head_dim = 4, window = 0} : f32[T, 4]", "the columns of q must be heads * head_dim" },
    { "%o = attention %x, %x, %x, %ring, %ring {heads = 1, kv_heads = 2, head_dim = 4, window = 0} : f32[T, 4]", "the columns of k must be kv_heads * head_dim" },
    { "ring_write %x, %x, %ring, %ring {window = 3}", "a ring must be [window, columns of k]" },
    { "%o = last_rows %t : f32[R, 4]", "an activation must be" },
    { "yield %t", "an activation must be" },
};

static void test_shapes(void)
{
    bool seen[N_OPS] = { [OP_WEIGHT] = true, [OP_STATE] = true, [OP_CALL] = true };     /* see test_verifier */
    for (size_t i = 0; i < sizeof shape_errors / sizeof *shape_errors; i++) {
        Text text = { 0 };
        text_printf(&text, "%s  %s\n%s}\n", VALUES, shape_errors[i].op,
                    strncmp(shape_errors[i].op, "yield", 5) == 0 ? "" : "  yield %x\n");
        check_refused(text.data, shape_errors[i].expected);
        text_free(&text);
        const char *equals = strstr(shape_errors[i].op, " = "), *name = shape_errors[i].op;
        if (*name == '%')
            name = equals + 3;
        for (int kind = 0; kind < N_OPS; kind++)
            if (strlen(op_info((OpKind)kind).text) == strcspn(name, " ")
                && strncmp(op_info((OpKind)kind).text, name, strcspn(name, " ")) == 0)
                seen[kind] = true;
    }
    for (int kind = 0; kind < N_OPS; kind++) {
        CU_ASSERT_TRUE(seen[kind]);
        if (!seen[kind])
            printf("no wrong type of %s is tried\n", op_info((OpKind)kind).text);
    }
}

/* ---- damaged texts ---- */

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* Characters and whole tokens of the text turn up elsewhere: refused with a word, or whole again. */
static void test_damaged(void)
{
    uint64_t seed = 3;
    int n_refused = 0, n_rounds = 4000;
    for (int round = 0; round < n_rounds; round++) {
        char text[sizeof by_hand];
        memcpy(text, by_hand, sizeof text);
        size_t len = sizeof text - 1;
        for (int n = 1 + (int)(next_random(&seed) % 3); n > 0; n--) {
            size_t at = next_random(&seed) % len, from = next_random(&seed) % len, most = 1 + next_random(&seed) % 12;
            for (size_t i = 0; i < most && at + i < len && from + i < len; i++)
                text[at + i] = next_random(&seed) % 9 ? by_hand[from + i] : (char)(1 + next_random(&seed) % 255);
        }
        char *found = diagnostics(text);
        n_refused += *found != 0;
        free(found);
    }
    CU_ASSERT(n_refused > n_rounds / 2);
}

/* Numbers of the text become extreme ones. */
static void test_extreme_numbers(void)
{
    static const char *const numbers[] = { "0", "-1", "1", "2147483647", "2147483648", "9223372036854775807",
                                           "-9223372036854775808", "99999999999999999999" };
    for (const char *at = by_hand; *at; at += strcspn(at, "0123456789")) {
        size_t len = strspn(at, "0123456789");
        for (size_t i = 0; len && i < sizeof numbers / sizeof *numbers; i++) {
            Text text = { 0 };
            text_printf(&text, "%.*s%s%s", (int)(at - by_hand), by_hand, numbers[i], at + len);
            free(diagnostics(text.data));
            text_free(&text);
        }
        at += len;
    }
}

static const UnitTest tests[] = {
    { "print, parse: every model, every pass", test_every_model },
    { "print, parse: by hand", test_by_hand },
    { "free form", test_free_form },
    { "parse errors", test_parse_errors },
    { "verifier", test_verifier },
    { "verifier, in memory", test_verifier_in_memory },
    { "shape rules", test_shapes },
    { "damaged texts", test_damaged },
    { "extreme numbers", test_extreme_numbers },
};
UNIT_MAIN("ir", tests)
