/* Whole models by a runner: what a board makes of random:0, packs and computes has the bits of what is made here.
 *
 * The command is `env`, so that the board is this machine; everything else is as elsewhere: a static program that makes
 * its weights itself.
 *
 *   test_runner_step [NAME]         all tests or one
 */
#include "trial_tools.h"

#include "../../compiler/outfile.h"
#include "../../tuner/step_build.h"

#include <stdlib.h>
#include <string.h>

#include "unit.h"

static const char graph[] =
    "{\"format\":\"mossnet-graph/1\",\"name\":\"b\\u00f6ard \\\"1\\\"\",\"vocab_size\":75,\"d_model\":24,\"experts\":3,"
    "\"top_k\":[2],\"layers\":[{\"op\":\"mamba\"},{\"op\":\"attention\",\"heads\":4,\"kv_heads\":2,\"head_dim\":20},"
    "{\"op\":\"mamba\",\"experts\":1,\"top_k\":1},{\"op\":\"mlp\",\"d_ff\":40}]}";

static StepRequest request_of(const Compilation *c, const char *untuned)
{
    return (StepRequest){ .untuned = untuned, .tuned = untuned, .folder = trial_folder, .n_tokens = 70, .n_threads = 2,
                          .vocab_size = (int)c->plan->graph->vocab_size, .same_bits = true, .deadline = 60,
                          .weights = arena_printf(trial_arena, "%s.weights", untuned) };
}

/* The logits of one storage type, made here and there. */
static void check_quant(Runner *runner, const char *quant)
{
    const char *model = arena_printf(trial_arena, "%s/%s.json", trial_folder, quant);
    Options options = { .value = { [OPTION_QUANT] = quant } };
    Compilation c = { .arena = trial_arena, .diags = diags_new(trial_arena), .model = model, .options = &options };
    StepResult here, there;
    NEED(out_write(c.diags, model, graph, strlen(graph)) && driver_plan(&c, false));
    StepBuild local = step_build_begin(&c, trial_folder, NULL), far = step_build_begin(&c, trial_folder, runner);
    const char *name = arena_printf(trial_arena, "model-%s", quant);
    const char *library = step_build(&local, name, NULL), *linked = step_build(&far, name, NULL);
    NEED(library && linked);
    StepRequest request = request_of(&c, library);
    step_run(&request, &here);
    request = request_of(&c, linked);
    runner_compare(runner, c.diags, c.plan, &request, far.models, far.n_models, &there);
    CU_ASSERT_EQUAL(here.status, TRIAL_OK);
    CU_ASSERT_EQUAL(there.status, TRIAL_OK);
    CU_ASSERT_EQUAL(there.max_error, 0);
    CU_ASSERT(there.prefill.n >= DECIDE_LEAST_PAIRS && there.decode.n == there.prefill.n);
    CU_ASSERT(here.bits != 0 && here.bits == there.bits);
    if (here.status != TRIAL_OK || there.status != TRIAL_OK || here.bits != there.bits)
        printf("%s: here %s %s %llx, there %s %s %llx\n", quant, trial_status_text(here.status), here.detail,
               (unsigned long long)here.bits, trial_status_text(there.status), there.detail,
               (unsigned long long)there.bits);
}

static void check_bits(const char *quant)
{
    SearchRun run = trial_run_of(DTYPE_F32);
    Runner *runner = runner_open(&run.builder, run.diags, "env", 20);
    NEED(runner);
    CU_ASSERT(runner_threads(runner) >= 1);
    check_quant(runner, quant);
}

static void test_bf16(void) { check_bits("bf16"); }
static void test_q8(void) { check_bits("q8"); }
static void test_q4(void) { check_bits("q4"); }

/* The machine that step_run finds is asked for a build that is not there, and gives no bits. */
static void test_no_model(void)
{
    SearchRun run = trial_run_of(DTYPE_F32);
    Runner *runner = runner_open(&run.builder, run.diags, "env", 20);
    const char *model = arena_printf(trial_arena, "%s/none.json", trial_folder);
    Options options = { .value = { [OPTION_QUANT] = "f32" } };
    Compilation c = { .arena = trial_arena, .diags = diags_new(trial_arena), .model = model, .options = &options };
    StepResult result;
    NEED(runner && out_write(c.diags, model, graph, strlen(graph)) && driver_plan(&c, false));
    StepBuild build = step_build_begin(&c, trial_folder, runner);
    NEED(step_build(&build, "there", NULL));
    StepRequest request = request_of(&c, "another.so");
    runner_compare(runner, c.diags, c.plan, &request, build.models, build.n_models, &result);
    CU_ASSERT_EQUAL(result.status, TRIAL_RUNNER_FAILED);
    CU_ASSERT_PTR_NOT_NULL(strstr(result.detail, "another.so"));
}

static const UnitTest tests[] = {
    { "bf16", test_bf16 }, { "q8", test_q8 }, { "q4", test_q4 }, { "no-model", test_no_model },
};

int main(int argc, char **argv)
{
    trial_tools_begin();
    int code = unit_main_named("runner_step", tests, (int)(sizeof tests / sizeof *tests), argc, argv);
    trial_tools_end();
    return code;
}
