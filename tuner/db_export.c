/* mossc db export: every trial, one a line or one an object, in an order that only its content decides. */
#include "db_summary.h"

#include <string.h>

/* Quoted where CSV needs it. */
static void put_cell(Text *out, const char *text)
{
    if (!text[strcspn(text, ",\"\r\n")]) {
        text_printf(out, "%s,", text);
        return;
    }
    text_append(out, "\"", 1);
    for (; *text; text++)
        text_printf(out, *text == '"' ? "\"\"" : "%c", *text);
    text_append(out, "\",", 2);
}

static void put_samples(Text *out, const double *samples, int n, const char *between)
{
    for (int i = 0; i < n; i++) {
        text_printf(out, "%s", i ? between : "");
        text_double(out, samples[i]);
    }
}

static void put_csv_trial(const Trial *t, Text *out)
{
    const char *const texts[] = { t->id, t->key.kernel, t->key.shape, t->key.dtypes, t->key.features, t->key.device,
                                  t->key.toolchain, t->key.template_hash, t->point, trial_status_text(t->status),
                                  t->incumbent };
    const double numbers[] = { t->max_error, t->tolerance, t->operations, t->bytes };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        put_cell(out, texts[i]);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        text_double(out, numbers[i]);
        text_append(out, ",", 1);
    }
    put_cell(out, t->search);
    text_printf(out, "%lld,%lld,%lld,", (long long)t->seed, (long long)t->ordinal, (long long)t->unix_ms);
    put_cell(out, t->detail);
    put_samples(out, t->samples, t->n_samples, " ");
    text_append(out, ",", 1);
    put_samples(out, t->incumbent_samples, t->n_incumbent_samples, " ");
    text_append(out, "\n", 1);
}

void db_export_csv(Arena *arena, const Summary *summary, Text *out)
{
    (void)arena;
    text_printf(out, "id,kernel,shape,dtypes,features,device,toolchain,template_hash,point,status,incumbent,max_error,"
                     "tolerance,operations,bytes,search_id,seed,ordinal,unix_ms,detail,samples,incumbent_samples\n");
    for (int i = 0; i < summary->n_kernels; i++)
        for (int j = 0; j < summary->kernels[i].n; j++)
            put_csv_trial(summary->kernels[i].trials[j], out);
}

static void put_text(Text *out, const char *name, const char *value)
{
    text_printf(out, "\"%s\": ", name);
    text_json_string(out, value);
    text_printf(out, ", ");
}

static void put_number(Text *out, const char *name, double value)
{
    text_printf(out, "\"%s\": ", name);
    if (value > 1e308)      /* JSON has no infinity */
        text_printf(out, "null");
    else
        text_double(out, value);
    text_printf(out, ", ");
}

static void put_json_trial(const Trial *t, Text *out)
{
    put_text(out, "id", t->id);
    put_text(out, "kernel", t->key.kernel);
    put_text(out, "shape", t->key.shape);
    put_text(out, "dtypes", t->key.dtypes);
    put_text(out, "features", t->key.features);
    put_text(out, "device", t->key.device);
    put_text(out, "toolchain", t->key.toolchain);
    put_text(out, "template_hash", t->key.template_hash);
    put_text(out, "point", t->point);
    put_text(out, "status", trial_status_text(t->status));
    put_text(out, "incumbent", t->incumbent);
    put_number(out, "max_error", t->max_error);
    put_number(out, "tolerance", t->tolerance);
    put_number(out, "operations", t->operations);
    put_number(out, "bytes", t->bytes);
    put_text(out, "search_id", t->search);
    text_printf(out, "\"seed\": %lld, \"ordinal\": %lld, \"unix_ms\": %lld, ", (long long)t->seed,
                (long long)t->ordinal, (long long)t->unix_ms);
    put_text(out, "detail", t->detail);
    text_printf(out, "\"samples\": [");
    put_samples(out, t->samples, t->n_samples, ", ");
    text_printf(out, "], \"incumbent_samples\": [");
    put_samples(out, t->incumbent_samples, t->n_incumbent_samples, ", ");
    text_printf(out, "] }");
}

void db_export_json(Arena *arena, const Summary *summary, Text *out)
{
    (void)arena;
    const char *between = "";
    text_printf(out, "[");
    for (int i = 0; i < summary->n_kernels; i++)
        for (int j = 0; j < summary->kernels[i].n; j++) {
            text_printf(out, "%s\n  { ", between);
            put_json_trial(summary->kernels[i].trials[j], out);
            between = ",";
        }
    text_printf(out, "\n]\n");
}
