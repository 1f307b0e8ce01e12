/* Checks of GPU kernels: cases, memory, random input, comparing, main.
 *
 * Input: FOLDER/NAME.list, lines "line instance template key=value …", which gpu_cases makes of
 * NAME.cases; FOLDER/NAME.so, or FOLDER/NAME.ptx with --cuda. Exit code: 0 all passed, 1 some did
 * not, 2 usage, 3 the environment.
 */
#include "check.h"
#include "check_run.h"

#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_BUFFERS = 128, MAX_LINE = 2048, SLACK = 0xA5, NAN_BYTE = 0xFF, PAGE = 4096, MAX_ARGS = 64, MAX_SHOWN = 5 };

static const char *program_name;                /* "embed" */
static char instance[MAX_LINE], params[MAX_LINE];
static int case_line, n_case_failures;
static bool on_gpu;
static CheckBuffer buffers[MAX_BUFFERS];
static int n_buffers;
static double *doubles[MAX_BUFFERS];
static int n_doubles;
static uint64_t seed;

/* ---- saying what is wrong ---- */

void check_fail(const char *format, ...)
{
    if (++n_case_failures > MAX_SHOWN)
        return;
    fprintf(stderr, "%s.cases:%d: %s: ", program_name, case_line, instance);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
}

#define DIE(...) (check_fail(__VA_ARGS__), fflush(NULL), _exit(1))

/* The emulator has said what; say where. */
static void on_abort(int signal_number)
{
    char text[MAX_LINE + 100];
    const int len = snprintf(text, sizeof text, "%s.cases:%d: aborted: %s\n", program_name, case_line, instance);
    if (write(2, text, (size_t)len) < 0)
        _exit(1);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* ---- the case ---- */

double check_param_float(const char *name)
{
    const size_t len = strlen(name);
    for (const char *p = params; *p; p += strcspn(p, " "), p += strspn(p, " "))
        if (strncmp(p, name, len) == 0 && p[len] == '=')
            return strtod(p + len + 1, NULL);
    DIE("no value of %s in \"%s\"", name, params);
}

int check_param(const char *name) { return (int)check_param_float(name); }

/* ---- memory ---- */

void *check_buffer(size_t len)
{
    if (n_buffers == MAX_BUFFERS)
        DIE("more than %d buffers", MAX_BUFFERS);
    const size_t whole = (len + 15) / 16 * 16, mapped = (whole + PAGE) / PAGE * PAGE;
    char *begin = mmap(NULL, mapped + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (begin == MAP_FAILED || mprotect(begin + mapped, PAGE, PROT_NONE) != 0)
        DIE("out of memory");
    CheckBuffer *buffer = &buffers[n_buffers++];
    *buffer = (CheckBuffer){ begin, begin + mapped, begin + mapped - whole, len, false, false, 0 };
    memset(begin, SLACK, mapped);
    memset(buffer->data, NAN_BYTE, len);
    return buffer->data;
}

static CheckBuffer *find_buffer(const void *p)
{
    for (int b = 0; b < n_buffers; b++)
        if (buffers[b].data == p)
            return &buffers[b];
    DIE("%p is no buffer", p);
}

void check_freeze(const void *p)
{
    CheckBuffer *buffer = find_buffer(p);
    buffer->frozen = true;
    mprotect(buffer->begin, (size_t)(buffer->end - buffer->begin), PROT_READ);
}

void check_early(const void *p) { find_buffer(p)->early = true; }

static bool is_slack(const char *p, const char *end)
{
    for (; p < end; p++)
        if ((unsigned char)*p != SLACK)
            return false;
    return true;
}

static void free_memory(void)
{
    for (int b = 0; b < n_buffers; b++) {
        const CheckBuffer *of = &buffers[b];
        if (!is_slack(of->begin, of->data) || !is_slack(of->data + of->len, of->end))
            check_fail("something was written around buffer %d, of %zu bytes", b, of->len);
        if (on_gpu)
            check_free_cuda(&buffers[b]);
        munmap(of->begin, (size_t)(of->end - of->begin) + PAGE);
    }
    for (int d = 0; d < n_doubles; d++)
        free(doubles[d]);
    n_buffers = n_doubles = 0;
}

double *check_doubles(size_t count)
{
    if (n_doubles == MAX_BUFFERS || !(doubles[n_doubles] = calloc(count + 1, sizeof(double))))
        DIE("out of memory");
    return doubles[n_doubles++];
}

/* ---- activations ---- */

double check_act_value(uint16_t value, int act)
{
    if (act == 1) {
        const uint32_t bits = (uint32_t)value << 16;
        float f;
        memcpy(&f, &bits, 4);
        return (double)f;
    }
    const int exponent = value >> 10 & 31, fraction = value & 1023;
    const double magnitude = exponent == 31 ? (fraction ? NAN : INFINITY)
                             : exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return value >> 15 ? -magnitude : magnitude;
}

/* The last place of a number of this size, as a power of two. */
static double act_unit(double value, int act)
{
    int exponent = INT_MIN;                                    /* of 0: the least */
    if (value != 0)
        frexp(value, &exponent);                               /* |value| in [2^(e-1), 2^e) */
    if (act == 2)
        return ldexp(1, (exponent < -13 ? -13 : exponent) - 11);
    return ldexp(1, (exponent < -125 ? -125 : exponent) - 8);
}

uint16_t check_act_round(double value, int act)
{
    if (isnan(value))
        return 0x7FFF;
    const double unit = act_unit(value, act), places = nearbyint(value / unit) * unit;   /* ties to even */
    const double magnitude = fabs(places);
    if (act == 1) {
        const float f = (float)places;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        return (uint16_t)(bits >> 16);
    }
    const int sign = signbit(places) ? 0x8000 : 0;
    if (magnitude >= 65520)
        return (uint16_t)(sign | 0x7C00);
    if (magnitude < 0x1p-14)
        return (uint16_t)(sign | (int)(magnitude * 0x1p24));
    int exponent;
    const double fraction = frexp(magnitude, &exponent);       /* [1/2, 1) */
    return (uint16_t)(sign | (exponent + 14) << 10 | ((int)(fraction * 2048) & 1023));
}

/* ---- random input ---- */

void check_seed(int n) { seed = 0x9E3779B97F4A7C15u * (uint64_t)(n + 1); }

uint64_t check_random_bits(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}

float check_random(void) { return (float)(check_random_bits() >> 40) * 0x1p-23f - 1; }

int check_random_below(int n) { return (int)((check_random_bits() >> 33) % (uint64_t)n); }

float *check_random_f32(int rows, int cols, int stride)
{
    float *data = check_buffer(sizeof(float) * (size_t)rows * (size_t)stride);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            data[(size_t)r * (size_t)stride + (size_t)c] = check_random();
    check_freeze(data);
    return data;
}

uint16_t *check_random_act(int rows, int cols, int stride, int act)
{
    uint16_t *data = check_buffer(sizeof(uint16_t) * (size_t)rows * (size_t)stride);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            data[(size_t)r * (size_t)stride + (size_t)c] = check_act_round((double)check_random(), act);
    check_freeze(data);
    return data;
}

CheckWeights check_random_weights(int n_experts, int n_out, int n_in, int weight_dtype)
{
    const size_t k = ((size_t)n_in + 63) / 64 * 64, n_rows = (size_t)n_experts * (size_t)n_out;
    const size_t element_len = weight_dtype == 3 ? 1 : 2, len = n_rows * k * element_len;
    const size_t scales_at = (len + 255) / 256 * 256;
    char *data = check_buffer(weight_dtype == 3 ? scales_at + sizeof(float) * n_rows : len);
    CheckWeights of = { data, NULL, check_doubles(n_rows * (size_t)n_in) };
    if (weight_dtype == 3)
        of.scales = (float *)(data + scales_at);
    memset(data, 0, len);
    for (size_t row = 0; row < n_rows; row++) {
        if (of.scales)
            of.scales[row] = (check_random() + 1.5f) / 127;
        for (size_t i = 0; i < (size_t)n_in; i++) {
            const float value = check_random();
            if (of.scales) {
                ((int8_t *)data)[row * k + i] = (int8_t)(value * 128);
                of.plain[row * (size_t)n_in + i] = (double)(int8_t)(value * 128) * (double)of.scales[row];
            } else {
                ((uint16_t *)data)[row * k + i] = check_act_round((double)value, weight_dtype);
                of.plain[row * (size_t)n_in + i] = check_act_value(((uint16_t *)data)[row * k + i], weight_dtype);
            }
        }
    }
    check_freeze(data);
    check_early(data);
    return of;
}

/* ---- launching ---- */

static void launch(const CheckGrid *grid, int n_args, const CheckArg *args)
{
    const void *values[MAX_ARGS];
    size_t lens[MAX_ARGS];
    for (int i = 0; i < n_args; i++) {
        values[i] = args[i].at;
        lens[i] = args[i].len;
    }
    if (grid->n_threads > check_param("threads"))
        DIE("%d threads, its PTX is for %d: say threads= in its case", grid->n_threads, check_param("threads"));
    const char *wrong = on_gpu ? check_run_cuda(instance, grid, n_args, values, lens, buffers, n_buffers)
                               : check_run_host(instance, grid, n_args, values, lens, buffers, n_buffers);
    if (wrong)
        DIE("%s", wrong);
}

void check_launch(int grid_x, int grid_y, int n_threads, int shared_len, int n_args, const CheckArg *args)
{
    launch(&(CheckGrid){ grid_x, grid_y, n_threads, shared_len, 0 }, n_args, args);
}

void check_launch_resident(int grid_x, int grid_y, int n_threads, int shared_len, int n_args, const CheckArg *args)
{
    launch(&(CheckGrid){ grid_x, grid_y, n_threads, shared_len, 1 }, n_args, args);
}

/* ---- comparing ---- */

typedef struct { const float *f32; const uint16_t *acts; int act, stride; } Got;

static void compare(const char *what, const Got *got, const double *want, int rows, int cols, double tolerance)
{
    double most = 0;
    for (size_t i = 0; i < (size_t)rows * (size_t)cols; i++)
        most = fabs(want[i]) > most ? fabs(want[i]) : most;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            const size_t at = (size_t)r * (size_t)got->stride + (size_t)c;
            const double w = want[(size_t)r * (size_t)cols + (size_t)c];
            const double g = got->f32 ? (double)got->f32[at] : check_act_value(got->acts[at], got->act);
            const double rounding = got->f32 ? 0 : act_unit(w, got->act) * 0.5000001;
            if (!(fabs(g - w) <= tolerance * most + rounding)) {
                check_fail("%s: row %d of %d, column %d of %d: %.9g, expected %.9g", what, r, rows, c, cols, g, w);
                return;
            }
        }
}

void check_rows_f32(const char *what, const float *got, const double *want, int rows, int cols, int stride,
                    double tolerance)
{
    compare(what, &(Got){ got, NULL, 0, stride }, want, rows, cols, tolerance);
}

void check_rows_act(const char *what, const uint16_t *got, const double *want, int rows, int cols, int stride,
                    int act, double tolerance)
{
    compare(what, &(Got){ NULL, got, act, stride }, want, rows, cols, tolerance);
}

void check_ints(const char *what, const int32_t *got, const int32_t *want, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (got[i] != want[i]) {
            check_fail("%s: [%zu] of %zu: %d, expected %d", what, i, count, got[i], want[i]);
            return;
        }
}

void check_bytes(const char *what, const void *got, const void *want, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (((const uint8_t *)got)[i] != ((const uint8_t *)want)[i]) {
            check_fail("%s: byte %zu of %zu: %02x, expected %02x", what, i, len, ((const uint8_t *)got)[i],
                       ((const uint8_t *)want)[i]);
            return;
        }
}

void check_untouched(const char *what, const void *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (((const uint8_t *)p)[i] != NAN_BYTE) {
            check_fail("%s: byte %zu of %zu was written", what, i, len);
            return;
        }
}

/* ---- main ---- */

/* 1 when the case failed. */
static int run_case(const char *template)
{
    check_seed(case_line);
    n_case_failures = 0;
    int n_run = 0;
    for (int i = 0; i < n_gpu_checks; i++)
        if (strcmp(gpu_checks[i].template, template) == 0) {
            gpu_checks[i].run();
            n_run++;
        }
    if (n_run == 0)
        check_fail("nothing checks %s", template);
    free_memory();
    return n_case_failures > 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: test_gpu_%s FOLDER [--cuda] [LINE]\n", program_name);
    return 2;
}

int main(int argc, char **argv)
{
    program_name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    if (strncmp(program_name, "test_gpu_", 9) == 0)
        program_name += 9;
    int only = 0;
    if (argc < 2)
        return usage();
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--cuda") == 0)
            on_gpu = true;
        else if ((only = atoi(argv[i])) == 0)
            return usage();

    char path[MAX_LINE], line[MAX_LINE], template[MAX_LINE];
    snprintf(path, sizeof path, "%s/%s.%s", argv[1], program_name, on_gpu ? "ptx" : "so");
    const char *wrong = on_gpu ? check_open_cuda(path) : check_open_host(path);
    if (wrong)
        return fprintf(stderr, "test_gpu_%s: %s\n", program_name, wrong), 3;
    snprintf(path, sizeof path, "%s/%s.list", argv[1], program_name);
    FILE *list = fopen(path, "r");
    if (!list)
        return perror(path), 3;
    signal(SIGABRT, on_abort);
    int n_run = 0, n_failed = 0;
    while (fgets(line, sizeof line, list)) {
        int at;
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%d %s %s %n", &case_line, instance, template, &at) != 3)
            return fprintf(stderr, "%s: cannot read \"%s\"\n", path, line), 3;
        strcpy(params, line + at);
        if (only && case_line != only)
            continue;
        n_run++;
        n_failed += run_case(template);
    }
    fclose(list);
    printf("%s: %d cases, %d failed%s\n", program_name, n_run, n_failed, on_gpu ? ", on the GPU" : "");
    return n_failed > 0 || n_run == 0;
}
