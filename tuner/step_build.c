/* Step build: for this machine libraries without weights inside, so that all take the file of the first; for a runner
 * objects, each under a prefix of its own, to be linked into one program that makes its weights itself.
 */
#include "step_build.h"

StepBuild step_build_begin(Compilation *c, const char *folder, Runner *runner)
{
    /* Elsewhere the packed weights are somebody else's work: they are as good as there. */
    return (StepBuild){ .c = c, .folder = folder, .runner = runner, .packed = { .is_packed = runner != NULL } };
}

const char *step_build(StepBuild *b, const char *name, const Choices *choices)
{
    Compilation *c = b->c;
    Arena *arena = c->arena;
    Options options = *c->options;
    const char *out = arena_printf(arena, "%s/%s.%s", b->folder, name, b->runner ? "o" : "so");
    const char *prefix = arena_printf(arena, "side%d", b->n_models);
    options.value[OPTION_EMBED] = "no";
    if (b->runner)
        options.value[OPTION_PREFIX] = prefix;
    if (!options.value[OPTION_WEIGHTS])
        options.value[OPTION_WEIGHTS] = "random:0";
    Compilation one = { .arena = arena, .diags = c->diags, .model = c->model, .options = &options, .choices = choices,
                        .out = out, .linked_in = b->runner != NULL };
    one.is_packed = b->packed.is_packed;
    one.packed_sum = b->packed.packed_sum;
    one.values_sum = b->packed.values_sum;
    bool ok = driver_compile(&one, b->runner ? "obj" : "lib");
    if (one.weights)
        weights_close(one.weights);
    b->packed = (Compilation){ .is_packed = ok, .packed_sum = one.packed_sum, .values_sum = one.values_sum };
    if (!ok || !b->runner)
        return ok ? out : NULL;
    const char *called = arena_printf(arena, "%s/%s.so", b->folder, name);
    b->models[b->n_models++] = (RunnerModel){ called, prefix, arena_printf(arena, "%s/%s.h", b->folder, name), out };
    return called;
}
