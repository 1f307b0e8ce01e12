/* `info`: what was compiled and the memory it needs, from the program's own data.
 *
 * Input: moss_program_data. Output: lines for people, or the manifest with --json.
 * Invariant: no weights are opened and no generated code runs, so it works on any machine.
 */
#include "cli.h"

#include <inttypes.h>
#include <string.h>

static void moss_info_print_len(const char *what, uint64_t len)
{
    printf("%-20s %" PRIu64 " bytes (%.2f MB)\n", what, len, (double)len / 1e6);
}

static void moss_info_print_modes(const moss_program *program)
{
    for (int32_t i = 0; i < program->n_modes; i++)
        printf("%-20s %d experts a token: %" PRIu64 " FLOPs, %" PRIu64 " bytes a generated token\n",
               i == 0 ? "modes" : "", program->mode_top_k[i], program->token_flops[i],
               program->token_bytes[i]);
}

static void moss_info_print_state(const moss_program *program)
{
    moss_info_print_len("state", moss_state_len(program->full_attention));
    if (program->full_attention)
        printf("%-20s and %" PRIu64 " bytes for every further token of context\n", "",
               program->state_token_len);
    else
        printf("%-20s constant: sequences are endless\n", "");
}

static void moss_info_print_gpu(const moss_program *program)
{
    const moss_gpu_program *gpu = program->gpu;
    moss_info_print_len("scratch, device", moss_gpu_plan(program).end);
    moss_info_print_len("PTX", gpu->ptx_len);
    printf("%-20s %d, in lists of %d (prompt), %d (token) and %d (choice)\n", "kernels", gpu->n_kernels,
           gpu->prefill.end - gpu->prefill.begin, gpu->decode.end - gpu->decode.begin, gpu->feed.end - gpu->feed.begin);
}

static void moss_info_print_target(const moss_program *program)
{
    printf("%-20s %s (needs: ", "target", program->target);
    if (program->gpu)
        printf("a GPU of compute capability %d.%d%s", program->gpu->sm / 10, program->gpu->sm % 10,
               program->gpu->sm >= 90 ? "" : " or later");
    else
        printf("%s", program->features);
    printf(")\n");
    for (int32_t i = 0; i < program->n_codes && program->n_codes > 1; i++)
        printf("%-20s %s (needs: %s)%s\n", i == 0 ? "code" : "", program->codes[i]->name, program->codes[i]->features,
               strcmp(program->codes[i]->name, moss_model_device(NULL)) ? "" : ": runs here");
}

static void moss_info_print(const moss_program *program)
{
    const int32_t n_threads = moss_default_threads();
    char scratch[32];
    snprintf(scratch, sizeof scratch, "scratch, %d thread%s", n_threads, n_threads == 1 ? "" : "s");
    printf("%-20s %s\n", "name", program->name);
    moss_info_print_target(program);
    printf("%-20s %s\n", "quantisation", program->quant);
    printf("%-20s %d tokens\n", "vocabulary", program->vocab_size);
    printf("%-20s %d tokens\n", "chunk", program->chunk);
    printf("%-20s %016" PRIx64 "\n", "model hash", program->model_hash);
    moss_info_print_modes(program);
    moss_info_print_len("weights", program->weights_len);
    moss_info_print_state(program);
    if (program->gpu)
        moss_info_print_gpu(program);
    else
        moss_info_print_len(scratch, moss_scratch_len(n_threads));
}

int moss_info_main(const moss_args *args)
{
    if (args->values[MOSS_OPT_JSON].given)
        printf("%s\n", moss_manifest());
    else
        moss_info_print(&moss_program_data);
    return moss_cli_flush(args);
}
