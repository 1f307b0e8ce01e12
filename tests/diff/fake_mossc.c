/* A stand-in for the compiler whose artifacts answer with the reference itself.
 *
 * It tests the differential test: with it every check must pass, and with a fault in
 * FAKE_FAULT the checks must fail. `compile` writes a script that calls this program's `run`.
 * Input and output: the parts of the two command lines that the differential test uses.
 * Invariant: without a fault, what is written are the reference's logits rounded to float32.
 */
#include "process.h"

#include "../../compiler/graph_read.h"
#include "../ref/ref.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    const char *graph, *weights, *quant, *out;   /* of compile */
    const char *logits;                          /* of run */
    int32_t *tokens;
    int n_tokens, top_k, n_threads, chunk;
    bool step;
} Command;

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "fake_mossc: error[usage]: %s\n", what);
    exit(2);
}

static bool fault_is(const char *name)
{
    const char *fault = getenv("FAKE_FAULT");
    return fault && strcmp(fault, name) == 0;
}

static void parse_tokens(Arena *arena, const char *text, Command *command)
{
    command->tokens = arena_array(arena, int32_t, strlen(text));
    for (const char *at = text; ; at++) {
        char *end;
        command->tokens[command->n_tokens++] = (int32_t)strtol(at, &end, 10);
        if (*end != ',')
            return;
        at = end;
    }
}

static Command parse_command(Arena *arena, int argc, char **argv)
{
    static const struct option known[] = {
        { "weights", 1, NULL, 'w' }, { "target", 1, NULL, 'T' }, { "quant", 1, NULL, 'q' },
        { "emit", 1, NULL, 'T' }, { "tokens", 1, NULL, 'i' }, { "logits", 1, NULL, 'l' },
        { "experts-per-token", 1, NULL, 'k' }, { "chunk", 1, NULL, 'c' },
        { "step", 0, NULL, 's' }, { 0 }
    };
    Command command = { .quant = "own" };
    for (int option; (option = getopt_long(argc, argv, "o:t:", known, NULL)) != -1; )
        switch (option) {
        case 'w': command.weights = optarg; break;
        case 'q': command.quant = optarg; break;
        case 'o': command.out = optarg; break;
        case 'i': parse_tokens(arena, optarg, &command); break;
        case 'l': command.logits = optarg; break;
        case 'k': command.top_k = atoi(optarg); break;
        case 't': command.n_threads = atoi(optarg); break;
        case 'c': command.chunk = atoi(optarg); break;
        case 's': command.step = true; break;
        case 'T': break;
        default: give_up("unknown option");
        }
    command.graph = optind < argc ? argv[optind] : NULL;
    return command;
}

static int compile(Arena *arena, const Command *command)
{
    char self[4096] = "";
    if (!command->graph || !command->weights || !command->out
        || readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        give_up("compile GRAPH --weights W -o OUT");
    if (fault_is("compile"))
        give_up("cannot compile today");
    const char *script = arena_printf(arena,
        "#!/bin/sh\nexec '%s' run '%s' --weights '%s' --quant %s \"$@\"\n",
        self, command->graph, command->weights, command->quant);
    return !file_write(command->out, script, strlen(script)) || chmod(command->out, 0755) != 0;
}

static int find_mode(const Graph *graph, int top_k)
{
    for (int mode = 0; mode < graph->n_modes; mode++)
        if (top_k == 0 || graph->mode_top_k[mode] == top_k)
            return mode;
    give_up("no such mode");
}

static double *expected_logits(Arena *arena, const Command *command, size_t *n)
{
    Diags *diags = diags_new(arena);
    DType quant = REF_OWN;
    Graph *graph = graph_read_file(arena, diags, command->graph);
    Weights *weights = graph ? weights_open(arena, diags, graph, command->weights) : NULL;
    if (!weights)
        give_up("cannot open the graph or its weights");
    if (strcmp(command->quant, "own") != 0 && !fault_is("quant"))
        dtype_from_text(command->quant, &quant);
    *n = (size_t)(command->n_tokens * graph->vocab_size);
    double *logits = arena_array(arena, double, *n);
    ref_logits(ref_open(arena, graph, weights, quant),
               find_mode(graph, fault_is("mode") ? 0 : command->top_k), command->tokens,
               command->n_tokens, logits);
    weights_close(weights);
    return logits;
}

/* Is the fault asked for one that this run has? */
static bool faulty_run(const Command *command)
{
    return fault_is("value") || (fault_is("step") && command->step)
        || (fault_is("chunk") && command->chunk == 2)
        || (fault_is("threads") && command->n_threads == 3);
}

static int run(Arena *arena, const Command *command)
{
    size_t n;
    if (!command->tokens || !command->logits)
        give_up("run GRAPH --tokens T --logits FILE");
    double *exact = expected_logits(arena, command, &n);
    float *logits = arena_array(arena, float, n);
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        logits[i] = (float)exact[i];
        largest = fmax(largest, fabs(exact[i]));
    }
    if (faulty_run(command))
        logits[n - 1] += (float)(largest * (fault_is("value") ? 2e-4 : 2e-5));
    if (fault_is("bit") && command->step)
        logits[n - 1] = nextafterf(logits[n - 1], INFINITY);
    if (fault_is("nan"))
        logits[n - 1] = NAN;
    if (fault_is("crash"))
        abort();
    return !file_write(command->logits, logits, (n - fault_is("short")) * sizeof *logits);
}

int main(int argc, char **argv)
{
    Arena *arena = arena_new();
    if (argc < 2)
        give_up("compile or run");
    Command command = parse_command(arena, argc - 1, argv + 1);
    int code = strcmp(argv[1], "compile") == 0 ? compile(arena, &command) : run(arena, &command);
    arena_free(arena);
    return code;
}
