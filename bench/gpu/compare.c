/* How far two files of logits are apart: bench_compare FOUND EXPECTED VOCABULARY
 *
 * Both raw little-endian float32 [tokens][VOCABULARY], as `run --logits` writes. Output: one line
 * "ERROR MEAN SAME TOKENS": max |found - expected| / max |expected|, the mean of |found - expected| over the same, and at
 * how many of the tokens both find the same logit largest. Exit code: 0, 1 a NaN or another length, 3 no such file.
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

int main(int n_arguments, char **arguments)
{
    const size_t n_vocab = n_arguments == 4 ? (size_t)atol(arguments[3]) : 0;
    if (n_vocab == 0)
        return fprintf(stderr, "usage: bench_compare FOUND EXPECTED VOCABULARY\n"), 2;
    const Logits found = read_logits(arguments[1]), expected = read_logits(arguments[2]);
    double most = 0, sum = 0, scale = 0;
    size_t n_same = 0;
    if (found.n != expected.n || found.n == 0 || found.n % n_vocab)
        return fprintf(stderr, "%zu and %zu logits, expected rows of %zu\n", found.n, expected.n, n_vocab), 1;
    for (size_t i = 0; i < found.n; i++) {
        const double apart = fabs((double)found.values[i] - expected.values[i]);
        if (!(apart <= 1e30))
            return fprintf(stderr, "logit %zu: %g, expected %g\n", i, found.values[i], expected.values[i]), 1;
        most = apart > most ? apart : most;
        scale = fabs(expected.values[i]) > scale ? fabs(expected.values[i]) : scale;
        sum += apart;
    }
    for (size_t row = 0; row < found.n; row += n_vocab)
        n_same += find_largest(found.values + row, n_vocab) == find_largest(expected.values + row, n_vocab);
    scale = scale > 0 ? scale : 1;
    printf("%.2e %.2e %zu %zu\n", most / scale, sum / (double)found.n / scale, n_same, found.n / n_vocab);
    free(found.values);
    free(expected.values);
    return 0;
}
