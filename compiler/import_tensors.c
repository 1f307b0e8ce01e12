/* Tensors of a checkpoint become tensors of the graph, by the rows of import.def.
 *
 * Input: the names, shapes and places of a checkpoint; the graph. Output: for each tensor of the
 * graph the byte ranges that make it up.
 * Invariant: no row computes: bytes are moved, cut and put behind one another. Every tensor of the
 * checkpoint is used, known to be idle, or an error.
 */
#include "import_tensors.h"

#include <ctype.h>
#include <string.h>

typedef enum { FORM_SAME, FORM_ONE, FORM_EACH, FORM_TAPS, FORM_FRONT, FORM_BACK, FORM_ZERO, FORM_TWIN, FORM_UNUSED } Form;
typedef struct { int family; Form form; const char *theirs, *ours; } Row;

static const Row rows[] = {
#define IMPORT(family, form, theirs, ours) { IMPORT_##family, FORM_##form, theirs, ours },
#include "import.def"
#undef IMPORT
};
enum { N_ROWS = sizeof rows / sizeof *rows };

typedef struct {
    Arena *arena;
    Diags *diags;
    const ImportFiles *files;
    const ImportConfig *config;
    const Graph *graph;
    bool failed;
} Matcher;

/* --- names --- */

/* The pattern with `word` in braces replaced by a number. */
static const char *fill(Arena *arena, const char *pattern, const char *word, int64_t number)
{
    const char *braces = arena_printf(arena, "{%s}", word);
    const char *at = strstr(pattern, braces);
    if (!at)
        return pattern;
    return arena_printf(arena, "%.*s%lld%s", (int)(at - pattern), pattern, (long long)number, at + strlen(braces));
}

/* Does the row make this tensor? A layer's kind must be the one the pattern names. */
static bool row_makes(const Matcher *m, const Row *row, const TensorSpec *spec)
{
    if (!(row->family & m->config->families) || row->form == FORM_TWIN || row->form == FORM_UNUSED)
        return false;
    const char *kind = spec->layer < 0 ? "" : layer_kind_text(m->graph->layers[spec->layer].kind);
    return strcmp(fill(m->arena, row->ours, kind, spec->layer), spec->name) == 0;
}

static const char *their_name(const Matcher *m, const Row *row, const TensorSpec *spec, int64_t expert)
{
    int64_t each = m->graph->n_layers / m->config->n_layers;
    return fill(m->arena, fill(m->arena, row->theirs, "layer", spec->layer / each), "expert", expert);
}

/* Numbers stand for what is in braces. */
static bool pattern_fits(const char *pattern, const char *name)
{
    while (*pattern && *name) {
        if (*pattern != '{') {
            if (*pattern++ != *name++)
                return false;
            continue;
        }
        if (!isdigit((unsigned char)*name))
            return false;
        while (isdigit((unsigned char)*name))
            name++;
        pattern = strchr(pattern, '}') + 1;
    }
    return !*pattern && !*name;
}

/* --- shapes --- */

/* What the checkpoint's tensor should be, for this form of ours. */
static SafetensorsEntry their_shape(const TensorSpec *spec, Form form)
{
    SafetensorsEntry out = { .rank = spec->rank };
    bool drop = form == FORM_ONE || form == FORM_EACH;
    out.rank -= drop;
    memcpy(out.shape, spec->shape + drop, (size_t)out.rank * sizeof *spec->shape);
    if (form == FORM_FRONT || form == FORM_BACK)
        out.shape[1] *= 2;
    if (form == FORM_TAPS) {
        out.rank = 3;
        out.shape[2] = out.shape[1];
        out.shape[1] = 1;
    }
    return out;
}

static bool source_fits(Matcher *m, const ImportSource *source, const TensorSpec *spec, Form form)
{
    const SafetensorsEntry *found = source->entry;
    SafetensorsEntry expected = their_shape(spec, form);
    Place at = { .file = import_source_path(m->files, source) };
    if (found->rank != expected.rank || memcmp(found->shape, expected.shape, (size_t)found->rank * sizeof *found->shape))
        diag_report(m->diags, DIAG_WEIGHTS_SHAPE, &at, "%s: found shape %s, expected %s for %s", found->name,
                    shape_text(m->arena, found->shape, found->rank), shape_text(m->arena, expected.shape, expected.rank),
                    spec->name);
    else if (!found->supported)
        diag_report(m->diags, DIAG_WEIGHTS_DTYPE, &at, "%s: found dtype %.20s, expected F32, F16 or BF16 for %s",
                    found->name, found->dtype_text, spec->name);
    else
        return true;
    m->failed = true;
    return false;
}

/* --- one tensor --- */

static void missing_report(Matcher *m, const TensorSpec *spec)
{
    Text names = { 0 };
    for (int i = 0; i < N_ROWS; i++)
        if (row_makes(m, &rows[i], spec))
            text_printf(&names, "%s%s", names.len ? " or " : "", their_name(m, &rows[i], spec, 0));
    diag_report(m->diags, DIAG_WEIGHTS_MISSING, &(Place){ .file = m->files->shards[0].path },
                "%s is missing, needed for %s %s", names.data ? names.data : "a tensor", spec->name,
                shape_text(m->arena, spec->shape, spec->rank));
    text_free(&names);
    m->failed = true;
}

/* The first spelling that is there; NULL after reporting. */
static const Row *row_find(Matcher *m, const TensorSpec *spec)
{
    for (int i = 0; i < N_ROWS; i++)
        if (row_makes(m, &rows[i], spec)
            && (rows[i].form == FORM_ZERO || import_files_find(m->files, their_name(m, &rows[i], spec, 0))))
            return &rows[i];
    missing_report(m, spec);
    return NULL;
}

static void dtype_agree(Matcher *m, ImportTensor *out, const ImportSource *source)
{
    if (out->n_pieces && out->entry.dtype != source->entry->dtype) {
        diag_report(m->diags, DIAG_WEIGHTS_DTYPE, &(Place){ .file = import_source_path(m->files, source) },
                    "%s: found dtype %s, the experts before it have %s; %s is of one type", source->entry->name,
                    source->entry->dtype_text, dtype_info(out->entry.dtype)->safetensors, out->entry.name);
        m->failed = true;
    }
    out->entry.dtype = source->entry->dtype;
}

/* FRONT and BACK: a half of each expert's rows; else all of it at once. */
static void pieces_add(ImportTensor *out, const ImportSource *source, Form form)
{
    int64_t begin = source->entry->begin, len = source->entry->end - begin;
    bool half = form == FORM_FRONT || form == FORM_BACK;
    int64_t n = half ? out->entry.shape[0] : 1;
    int64_t stride = len / n, take = half ? stride / 2 : stride;
    for (int64_t i = 0; i < n; i++)
        out->pieces[out->n_pieces++] = (ImportPiece){ source->shard, begin + i * stride + (form == FORM_BACK ? take : 0), take };
}

static void source_take(Matcher *m, ImportTensor *out, const Row *row, const TensorSpec *spec, int64_t expert)
{
    const char *name = their_name(m, row, spec, expert);
    ImportSource *source = import_files_find(m->files, name);
    if (!source) {
        diag_report(m->diags, DIAG_WEIGHTS_MISSING, &(Place){ .file = m->files->shards[0].path },
                    "%s is missing, needed for expert %lld of %s", name, (long long)expert, spec->name);
        m->failed = true;
        return;
    }
    source->used = true;
    if (!source_fits(m, source, spec, row->form))
        return;
    dtype_agree(m, out, source);
    pieces_add(out, source, row->form);
}

static void tensor_match(Matcher *m, const TensorSpec *spec, ImportTensor *out)
{
    out->entry = (SafetensorsEntry){ .name = spec->name, .supported = true, .dtype = DTYPE_F32, .rank = spec->rank };
    memcpy(out->entry.shape, spec->shape, (size_t)spec->rank * sizeof *spec->shape);
    out->pieces = arena_array(m->arena, ImportPiece, spec->per_expert ? (size_t)spec->shape[0] : 1);
    const Row *row = row_find(m, spec);
    if (!row)
        return;
    if (row->form == FORM_ZERO) {
        out->pieces[out->n_pieces++] = (ImportPiece){ -1, 0, tensor_spec_count(spec) * dtype_len(DTYPE_F32) };
        return;
    }
    int64_t n = row->form == FORM_EACH ? spec->shape[0] : 1;
    for (int64_t expert = 0; expert < n && !diags_full(m->diags); expert++)
        source_take(m, out, row, spec, expert);
}

/* --- what is left --- */

static const ImportTensor *tensor_named(const ImportTensor *tensors, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(tensors[i].entry.name, name) == 0)
            return &tensors[i];
    return NULL;
}

/* Same type, same bytes, compared in pieces. */
static bool twins_equal(Matcher *m, const ImportSource *twin, const ImportTensor *tensor)
{
    enum { STEP = 1 << 16 };
    char *a = arena_alloc(m->arena, STEP), *b = arena_alloc(m->arena, STEP);
    int64_t len = twin->entry->end - twin->entry->begin;
    const ImportPiece *piece = tensor->pieces;      /* SAME: a single one */
    bool equal = tensor->n_pieces == 1 && piece->len == len && twin->entry->supported
        && twin->entry->dtype == tensor->entry.dtype;
    for (int64_t at = 0; equal && at < len; at += STEP) {
        int64_t n = len - at < STEP ? len - at : STEP;
        equal = import_files_read(m->files, m->diags, twin->shard, twin->entry->begin + at, n, a)
            && import_files_read(m->files, m->diags, piece->shard, piece->begin + at, n, b)
            && memcmp(a, b, (size_t)n) == 0;
    }
    return equal;
}

static void twins_check(Matcher *m, const ImportTensor *tensors, int n)
{
    for (int i = 0; i < N_ROWS; i++) {
        if (!(rows[i].family & m->config->families) || rows[i].form != FORM_TWIN)
            continue;
        ImportSource *twin = import_files_find(m->files, rows[i].theirs);
        const ImportTensor *tensor = tensor_named(tensors, n, rows[i].ours);
        if (!twin || m->failed)
            continue;
        twin->used = true;
        if (twins_equal(m, twin, tensor))
            continue;
        diag_report(m->diags, DIAG_WEIGHTS_EXTRA, &(Place){ .file = import_source_path(m->files, twin) },
                    "%s differs from what becomes %s, but config.json says that they are tied", twin->entry->name,
                    tensor->entry.name);
        m->failed = true;
    }
}

static bool unused_known(const Matcher *m, const char *name)
{
    for (int i = 0; i < N_ROWS; i++)
        if ((rows[i].family & m->config->families) && rows[i].form == FORM_UNUSED && pattern_fits(rows[i].theirs, name))
            return true;
    return false;
}

static void extras_check(Matcher *m)
{
    for (int i = 0; i < m->files->n_sources && !diags_full(m->diags); i++) {
        const ImportSource *source = &m->files->sources[i];
        const SafetensorsEntry *entry = source->entry;
        if (source->used || unused_known(m, entry->name))
            continue;
        diag_report(m->diags, DIAG_WEIGHTS_EXTRA, &(Place){ .file = import_source_path(m->files, source) },
                    "%s: %.20s%s has no place in the graph that config.json describes", entry->name, entry->dtype_text,
                    shape_text(m->arena, entry->shape, entry->rank));
        m->failed = true;
    }
}

ImportTensor *import_tensors_match(Arena *arena, Diags *diags, const ImportFiles *files, const ImportConfig *config,
                                   const Graph *graph, int *n_tensors)
{
    Matcher m = { arena, diags, files, config, graph, false };
    const TensorSpec *specs = graph_tensors(graph, arena, n_tensors);
    ImportTensor *tensors = arena_array(arena, ImportTensor, (size_t)*n_tensors);
    for (int i = 0; i < *n_tensors && !diags_full(diags); i++)
        tensor_match(&m, &specs[i], &tensors[i]);
    twins_check(&m, tensors, *n_tensors);
    extras_check(&m);
    return m.failed ? NULL : tensors;
}
