/* The command line of an executable artifact: `./model [run|bench|eval|info] [options]`.
 *
 * Input: argv. Output: what the command prints, and its exit code.
 * Invariant: compiled for the target's baseline; generated code runs only after moss_model_open
 * has found that this CPU can.
 */
#include "cli.h"

#include <inttypes.h>

static int moss_print_version(const moss_args *args)
{
    const moss_program *program = &moss_program_data;
    printf("%s: compiled by mossc for %s, %s, ABI %d, model hash %016" PRIx64 "\n", program->name,
           program->target, program->quant, MOSS_ABI, program->model_hash);
    if (program->n_codes > 1)
        printf("code: %s\n", moss_model_device(NULL));
    return moss_cli_flush(args);
}

static int moss_main_command(const moss_args *args)
{
    switch (args->command) {
    case MOSS_CMD_RUN:   return moss_run_main(args);
    case MOSS_CMD_BENCH: return moss_bench_main(args);
    case MOSS_CMD_EVAL:  return moss_eval_main(args);
    case MOSS_CMD_INFO:  return moss_info_main(args);
    }
    return MOSS_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    moss_args args;
    if (moss_args_parse(&args, argc, argv) != MOSS_EXIT_OK)
        return moss_cli_fail(&args, MOSS_EXIT_USAGE, "%s", args.message);
    if (args.values[MOSS_OPT_HELP].given) {
        moss_args_help(&args, stdout);
        return moss_cli_flush(&args);
    }
    if (args.values[MOSS_OPT_VERSION].given)
        return moss_print_version(&args);
    moss_interrupt_install();
    return moss_main_command(&args);
}
