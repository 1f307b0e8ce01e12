/* Kernel tests, the half that runs where mossc does: renders the instances of cases.def for each
 * CPU target, compiles them with check.c and runs the result, under qemu-aarch64 for ARM.
 *
 * Usage: test_kernels SOURCE_DIR [--keep] [--target NAME]. CC names the compiler (cc), KERNEL_CFLAGS adds flags. A
 * target that this machine cannot compile or run is skipped with a line on stderr that says so; 77
 * is the exit status when no target was left.
 */
#include "../../codegen/template.h"
#include "../../ir/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    Arena *arena;
    Text source, entries;
    TargetId id;
    const Target *target;
    int n_entries, tile_rows, tail_rows, panel;
} Build;

/* What tuning chooses of kernels, changing from instance to instance, so that all of it meets the cases' odd sizes. */
static void set_choice(const Build *build, const char *param, double *value)
{
    static const int streams[] = { 4, 2, 1, 6 }, unrolls[] = { 1, 4, 2 }, k_blocks[] = { 0, 16, 48 }, tokens[] = { 8, 3, 32 };
    const int n = build->n_entries / 2;      /* gemm and gemv come in pairs */
    if (strcmp(param, "prefetch_rows") == 0)
        *value = 16;
    else if (strcmp(param, "streams") == 0)
        *value = streams[n % 4];
    else if (strcmp(param, "unroll") == 0)
        *value = unrolls[n % 3];
    else if (strcmp(param, "k_block") == 0)
        *value = build->target->family == FAMILY_X86 ? k_blocks[n % 3] : 0;
    else if (strcmp(param, "pack_lines") == 0)
        *value = build->target->family == FAMILY_X86 && n % 2;
    else if (strcmp(param, "widen") == 0)
        *value = n % 4 > 1;
    else if (strcmp(param, "by_lanes") == 0)
        *value = build->n_entries % 2;      /* route and rms_norm_route differ, and must not in their bits */
    else if (strcmp(param, "fetch_gap") == 0)
        *value = n % 2;
    else if (strcmp(param, "token_block") == 0 && *value == 0)
        *value = tokens[n % 3];
}

/* Add one instance, "name=value" for each parameter, as the kernel of a line of cases.def. */
static void add(Build *build, int row, const char *name, const char *params)
{
    const Template *template = template_find(build->arena, name);
    double values[TEMPLATE_MAX_PARAMS] = { 0 };
    char *text = arena_strdup(build->arena, params), *save = NULL;
    for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *equals = strchr(word, '=');
        *equals = '\0';
        values[template_param(template, word)] = strtod(equals + 1, NULL);
    }
    for (int i = 0; i < template->n_params; i++) {
        const char *param = template->params[i].name;
        if (strcmp(param, "panel") == 0)
            values[i] = build->panel;
        else if (strcmp(param, "tile_rows") == 0)
            values[i] = build->tile_rows;
        else if (strcmp(param, "tail_rows") == 0)
            values[i] = build->tail_rows;
        else if (strcmp(param, "block_rows") == 0)
            values[i] = 2 * build->tile_rows;
        else
            set_choice(build, param, &values[i]);
    }
    Text instance = { 0 };
    template_print_name(template, values, &instance);
    if (!build->source.data || !strstr(build->source.data, arena_printf(build->arena, "%s(", instance.data)))
        template_render(template, values, &build->source);
    text_printf(&build->entries, "    { \"%s\", %d, (void (*)(void))%s },\n", name, row, instance.data);
    text_free(&instance);
    build->n_entries++;
}

static int whole(int n, int unit) { return (n + unit - 1) / unit * unit; }
#define PARAMS(...) arena_printf(build->arena, __VA_ARGS__)

static void add_gemm(Build *build, int row, int n_in, int n_out, int n_experts, int dtype, int in_pairs,
                     int out_pairs, int has_bias, int accumulate, int exact)
{
    const char *params = PARAMS("n_in=%d n_out=%d in_stride=%d out_stride=%d n_experts=%d weight_dtype=%d in_pairs=%d out_pairs=%d "
                                "has_bias=%d accumulate=%d", n_in, n_out, whole(n_in, build->panel), exact ? n_out : whole(n_out, build->panel),
                                n_experts, dtype, in_pairs, out_pairs, has_bias, accumulate);
    add(build, row, "gemm", params);
    add(build, row, "gemv", params);
}

static void add_gemm_q(Build *build, int row, int n_in, int n_out, int n_experts, int dtype, int in_pairs,
                       int out_pairs, int has_bias, int accumulate, int exact)
{
    const char *params = PARAMS("n_in=%d n_out=%d in_stride=%d out_stride=%d n_experts=%d weight_dtype=%d in_pairs=%d out_pairs=%d "
                                "has_bias=%d accumulate=%d", n_in, n_out, whole(n_in, 64) + 64, exact ? n_out : whole(n_out, build->panel),
                                n_experts, dtype, in_pairs, out_pairs, has_bias, accumulate);
    add(build, row, "gemm_q", params);
    add(build, row, "gemv_q", params);
}

static void add_all(Build *build)
{
    const int panel = build->panel;
#define GEMM(i, o, e, w, ip, op, hb, ac, exact, k, t) add_gemm(build, __LINE__, i, o, e, w, ip, op, hb, ac, exact);
#define GEMM_ROUNDED(i, o, e, ip, op, hb, ac, exact, k, t) \
    if (target_row_dtype(build->id) != DTYPE_F32) \
        add_gemm(build, __LINE__, i, o, e, target_row_dtype(build->id) == DTYPE_F16 ? 6 : 5, ip, op, hb, ac, exact);
#define GEMM_Q(i, o, e, w, ip, op, hb, ac, exact, t) add_gemm_q(build, __LINE__, i, o, e, w, ip, op, hb, ac, exact);
#define QUANTIZE(i) add(build, __LINE__, "quantize", PARAMS("n_in=%d in_stride=%d out_stride=%d", i, whole(i, panel), whole(i, 64) + 64));
#define ROWS(i, e, rn)                                                                                             \
    add(build, __LINE__, "rms_norm", PARAMS("n_in=%d stride=%d eps=1e-5", i, whole(i, panel)));                    \
    add(build, __LINE__, "route", PARAMS("n_in=%d stride=%d n_experts=%d renormalize=%d", i, whole(i, panel), e, rn)); \
    add(build, __LINE__, "rms_norm_route", PARAMS("n_in=%d stride=%d eps=1e-5 n_experts=%d renormalize=%d", i, whole(i, panel), e, rn));
#define GROUP(e, n) add(build, __LINE__, "group", PARAMS("n_experts=%d", e));
#define EMBED(v, d, w) add(build, __LINE__, "embed", PARAMS("d_model=%d stride=%d weight_dtype=%d", d, whole(d, panel), w));
#define CONV(c, k, si, t) \
    add(build, __LINE__, "conv1d", PARAMS("n_channels=%d d_conv=%d in_stride=%d stride=%d silu=%d", c, k, whole(c, panel) + panel, whole(c, panel), si));
#define SCAN(c, n, zoh, t) \
    add(build, __LINE__, "scan", PARAMS("d_state=%d stride=%d z_stride=%d bc_stride=%d zoh=%d", n, whole(c, panel), whole(c, panel) + panel, 2 * n + 3, zoh));
#define SWIGLU(f, n) add(build, __LINE__, "swiglu", PARAMS("stride=%d", whole(f, panel)));
#define ROPE(n, h, theta)                                                                     \
    add(build, __LINE__, "rope_table", PARAMS("head_dim=%d theta=%.17g", h, (double)theta));  \
    add(build, __LINE__, "rope", PARAMS("n_heads=%d head_dim=%d in_stride=%d out_stride=%d", n, h, whole((n) * (h), panel), whole((n) * (h), panel) + panel));
#define ATTENTION(n, kv, h, w, tb, kb, t)                                                                           \
    add(build, __LINE__, "attention", PARAMS("n_heads=%d n_kv_heads=%d head_dim=%d head_stride=%d q_stride=%d kv_stride=%d out_stride=%d window=%d " \
        "token_block=%d key_block=%d", n, kv, h, whole(h, panel), whole((n) * (h), panel), whole((kv) * (h), panel), whole((n) * (h), panel), w, tb, (kb) * panel)); \
    add(build, __LINE__, "ring_write", PARAMS("kv_stride=%d n_columns=%d window=%d", whole((kv) * (h), panel), (kv) * (h), w));
#include "cases.def"
}

static bool write_text(const char *path, const Text *text)
{
    FILE *file = fopen(path, "w");
    return file && fwrite(text->data, 1, text->len, file) == text->len && fclose(file) == 0;
}

static bool have(Arena *arena, const char *tool)
{
    return system(arena_printf(arena, "command -v %s >/dev/null 2>&1", tool)) == 0;
}

/* The oldest kind of core that a target of 64-bit ARM is for: one that lacks what comes after. */
static const char *emulated_cpu(TargetId id)
{
    return id == TARGET_ARM_NEON ? "cortex-a72" : id == TARGET_ARM_DOTPROD || id == TARGET_ARM_FP16 ? "cortex-a76" : "max";
}

enum { PASSED = 0, FAILED = 1, SKIPPED = 77 };   /* a target that cannot run here is skipped loudly */


static int test_target(Arena *arena, TargetId id, const char *source_dir, const char *dir)
{
    Build build = { .arena = arena, .id = id, .target = target_info(id) };
    const Target *target = build.target;
    const char *cc = getenv("CC") ? getenv("CC") : "cc", *runner = "", *link = "-lm";
    if (!target_runs_here(id)) {
        if (target->family != FAMILY_AARCH64 || !have(arena, "aarch64-linux-gnu-gcc") || !have(arena, "qemu-aarch64"))
            return fprintf(stderr, "SKIPPED: %s: this machine neither runs nor emulates it\n", target->name), SKIPPED;
        cc = "aarch64-linux-gnu-gcc";
        link = "-static -lm";
        runner = arena_printf(arena, "qemu-aarch64 -cpu %s ", emulated_cpu(id));
    }
    build.panel = 2 * target->lanes;
    build.tile_rows = target->tile_rows;
    build.tail_rows = target->tail_rows;
    text_printf(&build.source, "#include \"runtime/route.h\"\n#include \"runtime/scan.h\"\n#include \"runtime/tile.h\"\n_Static_assert(LANES == %d, \"flags and lanes disagree\");\n\n", target->lanes);
    add_all(&build);
    text_printf(&build.source, "typedef struct { const char *name; int row; void (*kernel)(void); } Entry;\nconst Entry kernel_entries[] = {\n%s};\n"
                "const int n_kernel_entries = %d, kernel_tile_rows = %d, kernel_block_rows = %d;\n",
                build.entries.data, build.n_entries, build.tile_rows, 2 * build.tile_rows);
    const char *source = arena_printf(arena, "%s/%s.c", dir, target->name);
    const char *program = arena_printf(arena, "%s/%s", dir, target->name);
    bool good = write_text(source, &build.source);
    text_free(&build.source);
    text_free(&build.entries);
    if (!good)
        return perror(source), FAILED;
    const char *command = arena_printf(arena, "%s -std=c17 -O2 -ffp-contract=fast -fno-math-errno -Wall -Wextra -Werror %s%s %s -I'%s' "
                                       "-o '%s' '%s' '%s/tests/kernels/check.c' '%s/tuner/reference.c' %s", cc,
                                       target->flags,
                                       target_row_dtype(id) == DTYPE_BF16 ? " -DROUNDED=5" : target_row_dtype(id) == DTYPE_F16 ? " -DROUNDED=6" : "",
                                       getenv("KERNEL_CFLAGS") ? getenv("KERNEL_CFLAGS") : "",
                                       source_dir, program, source, source_dir, source_dir, link);
    if (system(command) != 0)
        return fprintf(stderr, "%s: failed: %s\n", target->name, command), FAILED;
    printf("%s (%s%s): ", target->name, runner, cc);
    fflush(stdout);
    return system(arena_printf(arena, "%s'%s'", runner, program)) != 0 ? FAILED : PASSED;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return fprintf(stderr, "usage: test_kernels SOURCE_DIR [--keep]\n"), 2;
    const char *only = NULL;
    bool keep = false;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--keep") == 0)
            keep = true;
        else if (strcmp(argv[i], "--target") == 0 && i + 1 < argc)
            only = argv[++i];
        else
            return fprintf(stderr, "test_kernels: what is %s?\n", argv[i]), 2;
    }
    Arena *arena = arena_new();
    char dir[] = "/tmp/test_kernels_XXXXXX";
    if (!mkdtemp(dir))
        return perror(dir), 3;
    template_check_all();
    int n_ran = 0, failed = 0;
    for (int id = 0; id < N_TARGETS; id++) {
        if (target_info((TargetId)id)->lanes == 0 || target_has_codes((TargetId)id)
            || (only && strcmp(only, target_info((TargetId)id)->name) != 0))
            continue;
        const int outcome = test_target(arena, (TargetId)id, argv[1], dir);
        n_ran += outcome != SKIPPED;
        failed |= outcome == FAILED;
    }
    if (keep)
        printf("kept %s\n", dir);
    else if (system(arena_printf(arena, "rm -r '%s'", dir)) != 0)
        failed = 1;
    arena_free(arena);
    return failed ? FAILED : n_ran ? PASSED : SKIPPED;
}
