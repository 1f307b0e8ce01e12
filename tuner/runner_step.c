/* Runner step: whole models compared on another machine; and what that reaches at most.
 *
 * Input: builds of a model as objects, each with a prefix of its own, and the plan that they share. Output: a
 * StepResult as step_run gives it here. One static program has all of them; it makes the weights itself
 * (board/step/weights.c), so that none are sent.
 */
#include "runner_internal.h"

#include "../compiler/interrupt.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_MODELS = STEP_MAX_VARIANTS + 2, MOST_OBJECTS = 64 };
_Static_assert(2 + STEP_MAX_CHUNKS + STEP_MAX_VARIANTS <= BOARD_MAX_PAIRS, "a line for each of a step's pairs");

/* ---- a step as C ---- */

static void print_string(const char *string, Text *out)
{
    text_append(out, "\"", 1);
    for (const unsigned char *c = (const unsigned char *)string; *c; c++)
        text_printf(out, *c < 0x20 || *c >= 0x7F || *c == '"' || *c == '\\' || *c == '?' ? "\\%03o" : "%c", *c);
    text_append(out, "\"", 1);
}

static void print_tensors(const Runner *r, const Plan *plan, Text *out)
{
    int n;
    const TensorSpec *specs = graph_tensors(plan->graph, r->arena, &n);
    text_printf(out, "static const TensorSpec tensors[] = {\n");
    for (int i = 0; i < n; i++) {
        text_printf(out, "    { .name = \"%s\", .rank = %d, .matrix = %d, .shape = { ", specs[i].name, specs[i].rank,
                    specs[i].matrix);
        for (int d = 0; d < specs[i].rank; d++)
            text_printf(out, "%lldLL, ", (long long)specs[i].shape[d]);
        text_printf(out, "} },\n");
    }
    text_printf(out, "};\n");
}

static void print_slots(const BlockPlan *block, int index, Text *out)
{
    text_printf(out, "static WeightSlot slots%d[] = {\n", index);
    for (int i = 0; i < block->n_weights; i++) {
        const WeightSlot *s = &block->weights[i];
#define INT(name) text_printf(out, ", ." #name " = %lldLL", (long long)s->name)
        text_printf(out, "    { .tensor = \"%s\", .layout = \"%s\", .dtype = %d", s->tensor, s->layout, (int)s->dtype);
        INT(row_begin); INT(n_experts); INT(n_out); INT(n_in); INT(offset); INT(len);
#undef INT
        text_printf(out, " },\n");
    }
    text_printf(out, "    { 0 },\n};\n");
}

/* What codegen/pack.c reads of a plan for CPUs. */
static void print_plan(const Plan *plan, Text *out)
{
    for (int i = 0; i < plan->n_blocks; i++)
        print_slots(&plan->blocks[i], i, out);
    text_printf(out, "static BlockPlan blocks[] = {\n");
    for (int i = 0; i < plan->n_blocks; i++)
        text_printf(out, "    { .n_weights = %d, .weights = slots%d },\n", plan->blocks[i].n_weights, i);
    text_printf(out, "};\nstatic LayerPlan layers[] = {\n");
    for (int i = 0; i < plan->n_layers; i++)
        text_printf(out, "    { .block = &blocks[%d], .weights_offset = %lldLL },\n",
                    (int)(plan->layers[i].block - plan->blocks), (long long)plan->layers[i].weights_offset);
    text_printf(out, "};\nstatic Graph graph = { .name = ");
    print_string(plan->graph->name, out);
    text_printf(out, " };\nstatic Plan plan = { .graph = &graph, .target = %d, .tiling = { .panel = %d }, "
                ".n_layers = %d, .layers = layers,\n    .main = &blocks[%d], .weights_len = %lldLL, "
                ".hash = %lluULL };\n",
                (int)plan->target, plan->tiling.panel, plan->n_layers, (int)(plan->main - plan->blocks),
                (long long)plan->weights_len, (unsigned long long)plan->hash);
}

static void print_models(const RunnerModel *models, int n, Text *out)
{
    for (int i = 0; i < n; i++) {
        const char *slash = strrchr(models[i].header, '/');
        text_printf(out, "#include \"%s\"\nBOARD_CALL(%s)\n", slash + 1, models[i].prefix);
    }
    text_printf(out, "static const BoardModel models[] = {\n");
    for (int i = 0; i < n; i++)
        text_printf(out, "    { \"%s\", %s_call },\n", models[i].name, models[i].prefix);
    text_printf(out, "};\n");
}

static void print_request(const Runner *r, const StepRequest *request, Text *out)
{
    text_printf(out, "    .request = { .untuned = \"%s\", .tuned = \"%s\", .folder = \"%s\", .n_tokens = %d, "
                ".n_threads = %d, .vocab_size = %d,\n        .same_bits = %d, .deadline = %.17g, .n_chunks = %d, "
                ".n_variants = %d, .chunks = { ", request->untuned, request->tuned, request->folder,
                request->n_tokens, request->n_threads, request->vocab_size, request->same_bits,
                request->deadline * r->slow, request->n_chunks, request->n_variants);
    for (int i = 0; i < request->n_chunks; i++)
        text_printf(out, "%d, ", request->chunks[i]);
    text_printf(out, "}, .variants = { ");
    for (int i = 0; i < request->n_variants; i++)
        text_printf(out, "{ \"%s\", %d }, ", request->variants[i].name, request->variants[i].value);
    text_printf(out, "} },\n");
}

/* A minute, and what a slow machine takes to draw, quantise and pack every weight. */
static double weights_seconds(const Runner *r, const Plan *plan)
{
    const double seconds_each = 2e-7;
    return 60 + seconds_each * (double)graph_total_params(plan->graph) * r->slow;
}

static void print_step(const Runner *r, const Plan *plan, const StepRequest *request, const RunnerModel *models, int n,
                       const char *nonce, Text *out)
{
    const Target *target = target_info(plan->target);
    text_printf(out, "#include \"board_step.h\"\n\nconst BoardTrial board_trial = {\n    .nonce = \"%s\",\n", nonce);
    runner_print_features(r, false, out);
    text_printf(out, "    .work = board_step_run,\n};\n");
    print_tensors(r, plan, out);
    print_plan(plan, out);
    print_models(models, n, out);
    text_printf(out, "const BoardStep board_step = {\n    .models = models, .n_models = %d, .plan = &plan, "
                ".target = { .family = %d, .dot_offset = %d }, .dot_group = %d,\n    .tensors = tensors, "
                ".n_tensors = sizeof tensors / sizeof *tensors, .weights_deadline = %.17g,\n", n, (int)target->family,
                target->dot_offset, target_dot_group(plan->target), weights_seconds(r, plan));
    print_request(r, request, out);
    text_printf(out, "};\n");
}

/* ---- the whole ---- */

static bool build_program(Runner *r, const Plan *plan, const StepRequest *request, const RunnerModel *models, int n,
                          RunnerProgram *program, StepResult *result)
{
    Text source = { 0 };
    const char *paths[MOST_OBJECTS];
    RunnerObjects others = { paths, 0 };
    for (int i = 0; i < r->step_objects.n; i++)
        paths[others.n++] = r->step_objects.paths[i];
    for (int i = 0; i < n; i++)
        paths[others.n++] = models[i].object;
    *program = runner_begin_program(r);
    print_step(r, plan, request, models, n, program->nonce, &source);
    return runner_link_program(r, program, &source, &others, result->detail, sizeof result->detail);
}

/* With pairs where there must be some. */
static bool believe_step(const Runner *r, const void *request, RunnerSaid *said)
{
    (void)request;
    if (!runner_is_answer(r, said))
        return false;
    if (said->result.status != TRIAL_OK || (said->pairs[0].n > 0 && said->pairs[0].n == said->pairs[1].n))
        return true;
    snprintf(said->why, sizeof said->why, "an answer without its pairs");
    return false;
}

static void take_result(const StepRequest *request, const RunnerSaid *said, StepResult *result)
{
    const TrialPairs *pairs = said->pairs;
    *result = (StepResult){ .status = said->result.status, .max_error = said->result.max_error,
                            .bits = said->bits[0] };
    memcpy(result->detail, said->result.detail, sizeof result->detail);
    result->prefill = *pairs++;
    result->decode = *pairs++;
    for (int i = 0; i < request->n_chunks; i++)
        result->chunks[i] = *pairs++;
    for (int i = 0; i < request->n_variants; i++)
        result->variants[i] = *pairs++;
}

void runner_compare(Runner *r, Diags *diags, const Plan *plan, const StepRequest *request, const RunnerModel *models,
                    int n, StepResult *result)
{
    RunnerProgram program;
    RunnerSaid said;
    *result = (StepResult){ .status = TRIAL_RUNNER_FAILED, .max_error = -1 };
    if (n > MAX_MODELS || (!r->step_objects.n && !runner_build_step_objects(r, diags))
        || r->step_objects.n + n > MOST_OBJECTS) {
        snprintf(result->detail, sizeof result->detail, "its program cannot be built");
        result->interrupted = interrupt_came();
        return;
    }
    if (!build_program(r, plan, request, models, n, &program, result)) {
        result->status = TRIAL_BUILD_FAILED;
        result->interrupted = interrupt_came();
        return;
    }
    const double seconds = request->deadline * r->slow + weights_seconds(r, plan);
    const bool good = runner_call_again(r, &program, seconds, believe_step, request, &said);
    unlink(program.path);
    if (good)
        take_result(request, &said, result);
    else
        snprintf(result->detail, sizeof result->detail, "%s", said.why);
    result->interrupted = said.interrupted;
}

/* ---- ceilings ---- */

static bool believe_ceilings(const Runner *r, const void *context, RunnerSaid *said)
{
    (void)context;
    return runner_is_machine(r, said);
}

bool runner_ceilings(Runner *r, const char *object, Ceilings *found)
{
    Text source = { 0 };
    RunnerSaid said;
    char why[TRIAL_DETAIL_LEN];
    const RunnerObjects others = { &object, 1 };
    const double deadline = CEILINGS_DEADLINE_S * r->slow;
    const RunnerProgram program = runner_begin_program(r);
    if (r->emulated)
        return false;
    text_printf(&source, "#include \"board.h\"\n\nextern const int ceiling_lanes;\n"
                "float ceiling_multiply(long steps);\n"
                "float ceiling_multiply_int8(long steps);\nfloat ceiling_read(const float *p, long n);\n"
                "static void work(void)\n{\n    const CeilingKernels kernels = { ceiling_lanes, ceiling_multiply, "
                "ceiling_multiply_int8, ceiling_read };\n    board_ceilings(&kernels, %.17g);\n}\n"
                "const BoardTrial board_trial = {\n    .nonce = \"%s\",\n    .work = work,\n", deadline,
                program.nonce);
    runner_print_features(r, false, &source);
    text_printf(&source, "};\n");
    if (!runner_link_program(r, &program, &source, &others, why, sizeof why))
        return false;
    const bool good = runner_call_again(r, &program, deadline, believe_ceilings, NULL, &said);
    unlink(program.path);
    *found = said.ceilings;
    return good && found->bytes > 0;
}
