/* Devices: the tables, looked up; what was measured may take the place of a figure.
 *
 * Input: devices.def, and rates.def, which bench/rates.sh made. Output: rates of a number of cores.
 * Invariant: every core has a rate of every class for every target it runs (tests/unit/test_predict.c).
 */
#include "devices.h"
#include "../ir/text.h"

#include <stdlib.h>
#include <string.h>

enum {
#define CORE(id, ...) CORE_##id,
#include "devices.def"
    N_CORES
};
enum {
#define DEVICE(id, ...) DEVICE_##id,
#include "devices.def"
    N_DEVICES
};

static const Core cores[N_CORES] = {
#define CORE(id, name, model, targets) { name, model, targets },
#include "devices.def"
};

static const Device devices[N_DEVICES] = {
#define DEVICE(id, name, text, ram, gbs, share_low, share_high, core_gbs, cache, cache_gbs, low, high)              \
    { name, text, ram, gbs, { share_low, share_high }, core_gbs, cache, cache_gbs, { low, high }, 0, { { 0 } } },
#include "devices.def"
};

static const struct { int device, core, n; double ghz; } clusters[] = {
#define CLUSTER(device, core, n, ghz) { DEVICE_##device, CORE_##core, n, ghz },
#include "devices.def"
};
enum { N_CLUSTERS = sizeof clusters / sizeof *clusters };

static const struct { const char *model, *code; RateClass rate; double operations; } rates[] = {
#define RATE(model, code, rate, operations) { model, code, RATE_##rate, operations },
#include "rates.def"
#undef RATE
};

bool device_at(int i, Device *device)
{
    if (i < 0 || i >= N_DEVICES)
        return false;
    *device = devices[i];
    for (int c = 0; c < N_CLUSTERS; c++)
        if (clusters[c].device == i)
            device->clusters[device->n_clusters++] =
                (Cluster){ &cores[clusters[c].core], clusters[c].n, clusters[c].ghz };
    return true;
}

/* ---- the option ---- */

static bool bad_setting(Diags *diags, const char *setting)
{
    diag_report(diags, DIAG_USAGE, NULL, "`--device`: found `%s`, expected bandwidth=GB/S or clock=GHZ, as in "
                "xeon-2,bandwidth=25.3,clock=2.9", setting);
    return false;
}

/* What was measured is of the cores in use. It varies from minute to minute, and a cache helps more than it should. */
static void set_bandwidth(Device *device, double gbs)
{
    device->gbs = gbs;
    device->core_gbs = 2 * gbs;
    device->share = (Span){ 0.85, 1.25 };
}

static void set_clock(Device *device, double ghz)
{
    double change = ghz / device->clusters[0].ghz;
    for (int c = 0; c < device->n_clusters; c++)
        device->clusters[c].ghz *= change;
}

static bool read_settings(Device *device, Diags *diags, const char *text)
{
    while (*text == ',') {
        const char *value = strchr(++text, '=');
        char *end = NULL;
        size_t len = value ? (size_t)(value - text) : 0;
        double number = value ? strtod(value + 1, &end) : 0;
        bool bandwidth = len == 9 && strncmp(text, "bandwidth", len) == 0;
        bool clock = len == 5 && strncmp(text, "clock", len) == 0;
        if (!(bandwidth || clock) || end == value + 1 || (*end && *end != ',') || !(number >= 0.1 && number <= 1e5))
            return bad_setting(diags, text);
        (bandwidth ? set_bandwidth : set_clock)(device, number);
        text = end;
    }
    return true;
}

bool device_read(Device *device, Diags *diags, const char *text)
{
    size_t len = strcspn(text, ",");
    for (int i = 0; device_at(i, device); i++)
        if (strlen(device->name) == len && strncmp(device->name, text, len) == 0)
            return read_settings(device, diags, text + len);
    diag_report(diags, DIAG_USAGE, NULL, "`--device %.*s`: no such device (mossc devices lists them)", (int)len, text);
    return false;
}

static bool has_word(const char *words, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += len)
        if ((at == words || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
            return true;
    return false;
}

const char *device_code(const Device *device, Diags *diags, TargetId target)
{
    TargetId codes[TARGET_MAX_CODES];
    const Core *core = device->clusters[0].core;
    for (int i = target_codes(target, codes) - 1; i >= 0; i--)
        if (has_word(core->targets, target_info(codes[i])->name))
            return target_info(codes[i])->name;
    diag_report(diags, DIAG_USAGE, NULL, "`--device %s` cannot run code for %s: there are figures for --target %s",
                device->name, target_info(target)->name, core->targets);
    return NULL;
}

/* ---- what follows from a row ---- */

static double core_rate(const Core *core, const char *code, RateClass rate)
{
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
        if (rates[i].rate == rate && strcmp(rates[i].model, core->model) == 0 && strcmp(rates[i].code, code) == 0)
            return rates[i].operations;
    BUG("no rate of %s for %s", core->model, code);
}

double device_rate(const Device *device, const char *code, RateClass rate, int n_threads)
{
    double slowest = 0;
    int left = n_threads;
    for (int c = 0; c < device->n_clusters && left > 0; left -= device->clusters[c++].n) {
        double one = core_rate(device->clusters[c].core, code, rate) * device->clusters[c].ghz * 1e9;
        slowest = c == 0 || one < slowest ? one : slowest;
    }
    /* More threads than cores take turns. */
    return slowest * (left > 0 ? n_threads - left : n_threads);
}

Span device_bandwidth(const Device *device, double bytes, int n_threads)
{
    double cores_gbs = device->core_gbs * n_threads;
    if (bytes < 0.8 * device->cache_mb * 1e6)
        return (Span){ 0.6 * device->core_cache_gbs * n_threads * 1e9, device->core_cache_gbs * n_threads * 1e9 };
    double low = device->gbs * device->share.low, high = device->gbs * device->share.high;
    low = low < 0.85 * cores_gbs ? low : 0.85 * cores_gbs;
    high = high < cores_gbs ? high : cores_gbs;
    return (Span){ low * 1e9, high * 1e9 };
}

int device_cores(const Device *device)
{
    int n = 0;
    for (int c = 0; c < device->n_clusters; c++)
        n += device->clusters[c].n;
    return n;
}

/* Of n cores that share work equally all wait for the slowest, as runtime/cores.c has it, by their float products. */
int device_threads(const Device *device)
{
    enum { MOST = 16 };
    const char *code = strncmp(device->clusters[0].core->targets, "x86", 3) == 0 ? "x86-64-v3" : "arm-neon";
    int n = 0, best_n = 0;
    double best = 0;
    for (int c = 0; c < device->n_clusters; c++) {
        double speed = core_rate(device->clusters[c].core, code, RATE_GEMM_FLOAT) * device->clusters[c].ghz;
        n += device->clusters[c].n;
        if (n * speed > best)
            best = n * speed, best_n = n;
    }
    return best_n < MOST ? best_n : MOST;
}

void devices_print(Text *out)
{
    Device device;
    text_printf(out, "%-12s %7s %9s  %s\n", "device", "memory", "bandwidth", "what it is");
    for (int i = 0; device_at(i, &device); i++) {
        text_printf(out, "%-12s %4.0f GB %5.1f GB/s  %s\n    ", device.name, device.ram_gb, device.gbs, device.text);
        for (int c = 0; c < device.n_clusters; c++)
            text_printf(out, "%s%d x %s %.2f GHz", c ? ", " : "", device.clusters[c].n, device.clusters[c].core->name,
                        device.clusters[c].ghz);
        text_printf(out, "\n");
    }
    text_printf(out, "\nFigures are of vendors, Wikipedia and measurements, named in compiler/devices.def.\n"
                     "What you measured yourself: --device NAME,bandwidth=GB/S,clock=GHZ.\n");
}
