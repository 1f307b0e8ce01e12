/* Devices: what is known of phones, boards and servers before a program runs there. See devices.def and rates.def. */
#ifndef MOSSC_COMPILER_DEVICES_H
#define MOSSC_COMPILER_DEVICES_H

#include "../ir/diag.h"
#include "../ir/target.h"

/* What kernels do, by how fast: products of matrices (prefill) and of vectors (decode), the scan. */
typedef enum {
    RATE_GEMM_Q8, RATE_GEMM_Q4, RATE_GEMM_FLOAT, RATE_GEMV_Q8, RATE_GEMV_Q4, RATE_GEMV_FLOAT, RATE_SCAN, N_RATES
} RateClass;

typedef struct {
    const char *name;
    const char *model;             /* llvm-mca's */
    const char *targets;           /* it runs, blank-separated, the best last */
} Core;

typedef struct { const Core *core; int n; double ghz; } Cluster;

typedef struct { double low, high; } Span;

enum { DEVICE_MAX_CLUSTERS = 4 };
typedef struct {
    const char *name, *text;
    double ram_gb;
    double gbs;                    /* its memory's */
    Span share;                    /* of gbs that its cores read together */
    double core_gbs;               /* one core's */
    double cache_mb, core_cache_gbs;   /* its last cache */
    Span efficiency;               /* of a core's rate that whole models reach */
    int n_clusters;
    Cluster clusters[DEVICE_MAX_CLUSTERS];     /* the fastest first */
} Device;

/* "NAME[,bandwidth=GB/S][,clock=GHZ]": a row of the table, with what was measured on that very device in its place:
 * the bandwidth the cores in use read at together, and the clock of its fastest. False after reporting. */
bool device_read(Device *device, Diags *diags, const char *text);

/* Which of `target`'s codes runs there, by its name; NULL after reporting that none does. */
const char *device_code(const Device *device, Diags *diags, TargetId target);

/* Operations a second of `n_threads` cores that share work equally, the fastest ones: all wait for the slowest. */
double device_rate(const Device *device, const char *code, RateClass rate, int n_threads);
/* Bytes a second, `bytes` being what a token's work comes back to. */
Span device_bandwidth(const Device *device, double bytes, int n_threads);
int device_cores(const Device *device);
/* How many threads an artifact starts there: on those cores that together are fastest. */
int device_threads(const Device *device);

/* `mossc devices`. */
void devices_print(Text *out);
/* Row `i` as it stands in the table; false when there is none. For tests. */
bool device_at(int i, Device *device);

#endif
