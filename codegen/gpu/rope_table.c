/* Angles of the rotary embedding: cosines and sines of position · theta^(-2i/head_dim), in double inside.
 *
 * Positions grow large, so the angle is reduced by multiples of π/2 in double before the series: good
 * to 1e-7 for positions to 1e9. sequences: 0, token t of sequence i is at positions[i] + t; 1, token i at positions[i].
 *
 * Grid: a token a block; any number of threads. head_dim is even, theta at least 1e-3.
 */
PARAM(head_dim, h) FPARAM(theta, th) PARAM(sequences, sq)

typedef union { double value; int64_t bits; } Double;

/* x > 0, normal; x = 2^e m, m in [√½, √2): e + log2(m), log m = 2 artanh((m - 1) / (m + 1)). */
DEVICE double log2_of(double x)
{
    Double m = { .value = x };
    int exponent = (int)(m.bits >> 52) - 1023;
    m.bits = (m.bits & 0xfffffffffffffL) | 0x3ff0000000000000L;
    if (m.value > 1.4142135623730951) {
        m.value *= 0.5;
        exponent++;
    }
    const double z = (m.value - 1) / (m.value + 1), square = z * z;
    double sum = 0;
    UNROLL
    for (int n = 23; n >= 1; n -= 2)
        sum = sum * square + 1.0 / n;
    return exponent + 2.8853900817779268 * z * sum;     /* 2 / log 2 */
}

/* |x| < 1000 */
DEVICE double exp2_of(double x)
{
    const int whole = (int)(x < 0 ? x - 0.5 : x + 0.5);
    const double r = (x - whole) * 0.69314718055994531;
    double sum = 1;
    UNROLL
    for (int n = 14; n >= 1; n--)
        sum = 1 + sum * r * (1.0 / n);
    const Double power = { .bits = (int64_t)(whole + 1023) << 52 };
    return sum * power.value;
}

KERNEL(rope_table)(float *table /* [n_tokens][head_dim] */, const int64_t *positions, const int32_t *ends,
    int32_t n_sequences, int32_t n_tokens)
{
    const int half = head_dim / 2;
    const int t = block_x();
    dependency_wait();
    dependency_launch();
    if (t >= n_tokens)
        return;
    const SequenceTile at = sequences ? (SequenceTile){ t, t, t + 1, 0 }
        : sequence_of_row(ends, n_sequences, n_tokens, t);
    const int64_t position = positions[at.sequence] + at.first;
    const double step = log2_of((double)theta) * (-2.0 / head_dim);
    float *to = table + (int64_t)t * head_dim;
    for (int i = thread_x(); i < half; i += n_threads()) {
        const double angle = (double)position * exp2_of(step * i);
        const int64_t quarters = (int64_t)(angle * 0.63661977236758134 + 0.5);      /* 2 / π */
        double r = __builtin_fma((double)-quarters, 1.5707963267948966, angle);     /* π/2, and what is missing in it */
        r = __builtin_fma((double)-quarters, 6.123233995736766e-17, r);
        const double square = r * r;
        double sine = 1, cosine = 1;
        UNROLL
        for (int n = 12; n >= 2; n -= 2) {
            sine = 1 - sine * square * (1.0 / (n * (n + 1)));
            cosine = 1 - cosine * square * (1.0 / (n * (n - 1)));
        }
        sine *= r;
        const bool swap = quarters & 1;
        const double c = swap ? sine : cosine, s = swap ? cosine : sine;
        to[i] = (float)((quarters + 1) & 2 ? -c : c);
        to[half + i] = (float)(quarters & 2 ? -s : s);
    }
}
