/* Decisions: medians and sign tests. */
#include "decide.h"

#include <stdlib.h>

static const double chance = 0.02, gain = 0.99, harm = 1.05, slower = 1.005;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double decide_ratio(const double *candidate, const double *incumbent, int n)
{
    double ratios[DECIDE_MOST_PAIRS];
    n = n < DECIDE_MOST_PAIRS ? n : DECIDE_MOST_PAIRS;
    for (int i = 0; i < n; i++)
        ratios[i] = candidate[i] / incumbent[i];
    qsort(ratios, (size_t)n, sizeof *ratios, by_value);
    return n == 0 ? 1 : n % 2 ? ratios[n / 2] : (ratios[n / 2 - 1] + ratios[n / 2]) / 2;
}

/* Probability that `wins` or more of n fair coins fall so. */
static double tail(int wins, int n)
{
    double sum = 0, term = 1;      /* n over k */
    for (int k = 0; k <= n; k++) {
        if (k >= wins)
            sum += term;
        term = term * (n - k) / (k + 1);
    }
    for (int i = 0; i < n; i++)
        sum /= 2;
    return sum;
}

static bool by_chance(const double *faster, const double *slower, int n)
{
    int wins = 0;
    n = n < DECIDE_MOST_PAIRS ? n : DECIDE_MOST_PAIRS;
    for (int i = 0; i < n; i++)
        wins += faster[i] < slower[i];
    return tail(wins, n) > chance;
}

bool decide_hopeless(const double *candidate, const double *incumbent, int n)
{
    double ratio = decide_ratio(candidate, incumbent, n);
    return ratio > (n < 2 ? 2 : n < 4 ? 1.1 : n < 6 ? 1.03 : 1);
}

bool decide_wins(const double *candidate, const double *incumbent, int n)
{
    return n >= DECIDE_LEAST_PAIRS && decide_ratio(candidate, incumbent, n) <= gain && !by_chance(candidate, incumbent,
        n);
}

bool decide_done(const double *candidate, const double *incumbent, int n)
{
    if (n < DECIDE_LEAST_PAIRS)
        return false;
    return n >= DECIDE_MOST_PAIRS || decide_ratio(candidate, incumbent, n) > gain || !by_chance(candidate, incumbent,
        n);
}

bool decide_harms(const double *candidate, const double *incumbent, int n)
{
    return decide_ratio(candidate, incumbent, n) >= harm && !by_chance(incumbent, candidate, n);
}

bool decide_slower(double ratio) { return ratio >= slower; }

bool decide_slower_settled(const double *candidate, const double *incumbent, int n)
{
    int n_slower = 0;
    n = n < DECIDE_MOST_PAIRS ? n : DECIDE_MOST_PAIRS;
    for (int i = 0; i < n; i++)
        n_slower += decide_slower(candidate[i] / incumbent[i]);
    return tail(n_slower > n - n_slower ? n_slower : n - n_slower, n) <= chance;
}
