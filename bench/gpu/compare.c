/* How far two files of logits are apart: bench_compare FOUND EXPECTED VOCABULARY ALLOWED
 *
 * Both raw little-endian float32 [tokens][VOCABULARY], as `run --logits` writes. Output: one line
 * "MEDIAN MOST SAME TOKENS": a token's error is max |found - expected| over its row / max |expected| over all; its
 * median and most over the tokens, and at how many tokens both find the same logit largest. A router whose choice was
 * close may choose otherwise, and then that token's error is large: the median tells more. Exit code: 0, 1 a NaN,
 * another length or a median above ALLOWED, 3 no such file.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct { float *values; size_t n; } Logits;

static Logits read_logits(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(3);
    }
    const size_t n = (size_t)ftell(file) / sizeof(float);
    Logits logits = { malloc(n * sizeof(float) + 1), n };
    rewind(file);
    if (!logits.values || fread(logits.values, sizeof(float), n, file) != n) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(3);
    }
    fclose(file);
    return logits;
}

static size_t find_largest(const float *row, size_t n)      /* row [n] */
{
    size_t largest = 0;
    for (size_t i = 1; i < n; i++)
        if (row[i] > row[largest])
            largest = i;
    return largest;
}

static double row_error(const float *found, const float *expected, size_t n)      /* [n]; NaN and infinity: 1e30 */
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        const double apart = fabs((double)found[i] - (double)expected[i]);
        most = !(apart <= 1e30) ? 1e30 : apart > most ? apart : most;
    }
    return most;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int n_arguments, char **arguments)
{
    const size_t n_vocab = n_arguments == 5 ? (size_t)atol(arguments[3]) : 0;
    if (n_vocab == 0)
        return fprintf(stderr, "usage: bench_compare FOUND EXPECTED VOCABULARY ALLOWED\n"), 2;
    const Logits found = read_logits(arguments[1]), expected = read_logits(arguments[2]);
    const size_t n_tokens = expected.n / n_vocab;
    if (found.n != expected.n || expected.n != n_tokens * n_vocab || n_tokens == 0)
        return fprintf(stderr, "%zu logits, expected %zu in rows of %zu\n", found.n, expected.n, n_vocab), 1;
    double *errors = calloc(n_tokens, sizeof *errors), scale = 0;
    size_t n_same = 0;
    if (!errors)
        return perror("bench_compare"), 3;
    for (size_t i = 0; i < expected.n; i++)
        scale = fmax(scale, fabs((double)expected.values[i]));
    for (size_t t = 0; t < n_tokens; t++) {
        const float *found_row = found.values + t * n_vocab, *expected_row = expected.values + t * n_vocab;
        errors[t] = row_error(found_row, expected_row, n_vocab) / (scale > 0 ? scale : 1);
        n_same += find_largest(found_row, n_vocab) == find_largest(expected_row, n_vocab);
    }
    qsort(errors, n_tokens, sizeof *errors, compare_doubles);
    printf("%.1e %.1e %zu %zu\n", errors[n_tokens / 2], errors[n_tokens - 1], n_same, n_tokens);
    const double allowed = atof(arguments[4]);
    const int is_wrong = !(errors[n_tokens / 2] <= allowed) || errors[n_tokens - 1] >= 1e20;
    if (is_wrong)
        fprintf(stderr, "errors from the median %.1e, allowed %g, to %.1e\n", errors[n_tokens / 2], allowed,
                errors[n_tokens - 1]);
    free(errors);
    free(found.values);
    free(expected.values);
    return is_wrong;
}
