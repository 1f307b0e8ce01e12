/* Safetensors: u64 length, a JSON header, then the bytes of all tensors.
 *
 * Input: the file's bytes. Output: entries sorted by name, with shapes, types and byte ranges.
 * Invariant: the entries' ranges lie inside the data, cover it exactly once, and each is as long as
 * its shape and type say, so readers need no further checks. Ranges need not be aligned to their
 * element: the format does not promise that, and readers copy.
 */
#include "safetensors.h"
#include "json.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Arena *arena;
    Diags *diags;
    const char *file;
    Safetensors *out;
    bool failed;
} Reader;

/* Places inside the header are JSON pointers: its one long line means nothing to a person. */
__attribute__((format(printf, 3, 4)))
static bool refuse(Reader *reader, const char *tensor, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *message = arena_vprintf(reader->arena, format, args);
    va_end(args);
    diag_report(reader->diags, DIAG_WEIGHTS_FORMAT, &(Place){ .file = reader->file }, "%s%s%s",
                tensor ? tensor : "", tensor ? ": " : "", message);
    reader->failed = true;
    return false;
}

const char *shape_text(Arena *arena, const int64_t *shape, int rank)
{
    Text text = { 0 };
    text_printf(&text, "[");
    for (int i = 0; i < rank; i++)
        text_printf(&text, "%s%lld", i ? "," : "", (long long)shape[i]);
    text_printf(&text, "]");
    const char *copy = arena_strdup(arena, text.data);
    text_free(&text);
    return copy;
}

static bool whole(const cJSON *value, int64_t *out)
{
    if (!cJSON_IsNumber(value) || floor(value->valuedouble) != value->valuedouble
        || value->valuedouble < 0 || value->valuedouble > 0x1p53)
        return false;
    *out = (int64_t)value->valuedouble;
    return true;
}

static bool shape_read(Reader *reader, const cJSON *shape, SafetensorsEntry *entry)
{
    if (!cJSON_IsArray(shape))
        return refuse(reader, entry->name, "\"shape\" is not an array");
    for (const cJSON *item = shape->child; item; item = item->next) {
        if (entry->rank == SAFETENSORS_MAX_RANK)
            return refuse(reader, entry->name, "more than %d dimensions", SAFETENSORS_MAX_RANK);
        if (!whole(item, &entry->shape[entry->rank++]))
            return refuse(reader, entry->name, "\"shape\" holds something else than whole numbers");
    }
    return true;
}

static bool offsets_read(Reader *reader, const cJSON *offsets, SafetensorsEntry *entry)
{
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2
        || !whole(offsets->child, &entry->begin) || !whole(offsets->child->next, &entry->end))
        return refuse(reader, entry->name, "\"data_offsets\" is not two whole numbers");
    if (entry->begin > entry->end || entry->end > reader->out->data_len)
        return refuse(reader, entry->name, "data_offsets [%lld,%lld] outside the %lld bytes of data",
                      (long long)entry->begin, (long long)entry->end, (long long)reader->out->data_len);
    return true;
}

/* Types that this reader does not convert have no known length; their place is all that counts. */
static bool length_check(Reader *reader, const SafetensorsEntry *entry)
{
    int64_t len = entry->supported ? dtype_len(entry->dtype) : 0;
    bool fits = true;
    for (int i = 0; i < entry->rank; i++)
        fits &= !__builtin_mul_overflow(len, entry->shape[i], &len);
    if (!entry->supported || (fits && len == entry->end - entry->begin))
        return true;
    return refuse(reader, entry->name, "data_offsets span %lld bytes, %s%s needs %s%lld",
                  (long long)(entry->end - entry->begin), entry->dtype_text,
                  shape_text(reader->arena, entry->shape, entry->rank), fits ? "" : "more than ",
                  fits ? (long long)len : (long long)INT64_MAX);
}

static bool entry_read(Reader *reader, const cJSON *value, SafetensorsEntry *entry)
{
    static const char *const known[] = { "dtype", "shape", "data_offsets" };
    *entry = (SafetensorsEntry){ .name = arena_strdup(reader->arena, value->string) };   /* a refused one was here */
    if (!cJSON_IsObject(value))
        return refuse(reader, entry->name, "its header entry is not an object");
    for (const cJSON *field = value->child; field; field = field->next)
        if (strcmp(field->string, known[0]) && strcmp(field->string, known[1]) && strcmp(field->string, known[2]))
            return refuse(reader, entry->name, "unknown key \"%.60s\" in its header entry", field->string);
    for (int i = 0; i < 3; i++)
        if (!cJSON_GetObjectItemCaseSensitive(value, known[i]))
            return refuse(reader, entry->name, "its header entry has no \"%s\"", known[i]);
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(value, "dtype");
    if (!cJSON_IsString(dtype))
        return refuse(reader, entry->name, "\"dtype\" is not a string");
    entry->dtype_text = arena_strdup(reader->arena, dtype->valuestring);
    entry->supported = dtype_from_safetensors(dtype->valuestring, (int)strlen(dtype->valuestring), &entry->dtype);
    return shape_read(reader, cJSON_GetObjectItemCaseSensitive(value, "shape"), entry)
        && offsets_read(reader, cJSON_GetObjectItemCaseSensitive(value, "data_offsets"), entry)
        && length_check(reader, entry);
}

static bool metadata_check(Reader *reader, const cJSON *value)
{
    if (!cJSON_IsObject(value))
        return refuse(reader, NULL, "__metadata__ is not an object");
    for (const cJSON *item = value->child; item; item = item->next)
        if (!cJSON_IsString(item))
            return refuse(reader, NULL, "__metadata__ holds something else than strings");
    return true;
}

static int compare_begin(const void *a, const void *b)
{
    const SafetensorsEntry *left = a, *right = b;
    if (left->begin != right->begin)
        return left->begin < right->begin ? -1 : 1;
    return (left->end > right->end) - (left->end < right->end);
}

static int compare_name(const void *a, const void *b)
{
    return strcmp(((const SafetensorsEntry *)a)->name, ((const SafetensorsEntry *)b)->name);
}

static bool coverage_check(Reader *reader)
{
    Safetensors *out = reader->out;
    int64_t at = 0;
    qsort(out->entries, (size_t)out->n_entries, sizeof *out->entries, compare_begin);
    for (int i = 0; i < out->n_entries; at = out->entries[i++].end) {
        const SafetensorsEntry *entry = &out->entries[i];
        if (entry->begin < at)
            return refuse(reader, entry->name, "its data starts at %lld and overlaps %s, which ends at %lld",
                          (long long)entry->begin, out->entries[i - 1].name, (long long)at);
        if (entry->begin > at)
            return refuse(reader, entry->name, "its data starts at %lld, a hole of %lld bytes before it",
                          (long long)entry->begin, (long long)(entry->begin - at));
    }
    if (at != out->data_len)
        return refuse(reader, NULL, "%lld bytes of data after the last tensor; is the file complete?",
                      (long long)(out->data_len - at));
    return true;
}

/* A file cut short is told once, not for every tensor that lies behind the cut. */
static bool complete(Reader *reader, const cJSON *root)
{
    int64_t most = 0, end;
    for (const cJSON *value = root->child; value; value = value->next) {
        const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(value, "data_offsets");
        if (cJSON_GetArraySize(offsets) == 2 && whole(offsets->child->next, &end) && end > most)
            most = end;
    }
    if (most <= reader->out->data_len)
        return true;
    return refuse(reader, NULL, "truncated: %lld bytes of data, the header describes %lld",
                  (long long)reader->out->data_len, (long long)most);
}

static void entries_read(Reader *reader, const cJSON *root)
{
    Safetensors *out = reader->out;
    if (!complete(reader, root))
        return;
    out->entries = arena_array(reader->arena, SafetensorsEntry, (size_t)cJSON_GetArraySize(root));
    for (const cJSON *value = root->child; value && !diags_full(reader->diags); value = value->next)
        if (strcmp(value->string, "__metadata__") == 0)
            metadata_check(reader, value);
        else if (entry_read(reader, value, &out->entries[out->n_entries]))
            out->n_entries++;
    if (!reader->failed)
        coverage_check(reader);
    qsort(out->entries, (size_t)out->n_entries, sizeof *out->entries, compare_name);
}

/* Length of the JSON header, or -1 after reporting. */
static int64_t header_len(Reader *reader, const unsigned char *bytes, size_t len)
{
    if (len < 8) {
        refuse(reader, NULL, "%zu bytes are too few for a safetensors file", len);
        return -1;
    }
    uint64_t header = 0;
    for (int i = 0; i < 8; i++)
        header |= (uint64_t)bytes[i] << 8 * i;
    if (header > SAFETENSORS_MAX_HEADER)
        refuse(reader, NULL, "not a safetensors file: a header of %llu bytes, at most %d are allowed",
               (unsigned long long)header, SAFETENSORS_MAX_HEADER);
    else if (header > len - 8)
        refuse(reader, NULL, "the header should have %llu bytes, the file ends after %zu",
               (unsigned long long)header, len - 8);
    else
        return (int64_t)header;
    return -1;
}

bool safetensors_read(Arena *arena, Diags *diags, const char *file, const unsigned char *bytes, size_t len,
                      Safetensors *out)
{
    *out = (Safetensors){ 0 };
    Reader reader = { arena, diags, arena_strdup(arena, file), out, false };
    int64_t header = header_len(&reader, bytes, len);
    if (header < 0)
        return false;
    out->data = bytes + 8 + header;
    out->data_len = (int64_t)len - 8 - header;
    Json *json = json_parse(arena, diags, arena_printf(arena, "%s (header)", file), (const char *)bytes + 8,
                            (size_t)header, SAFETENSORS_MAX_HEADER);
    if (!json)
        return false;
    if (cJSON_IsObject(json_root(json)))
        entries_read(&reader, json_root(json));
    else
        refuse(&reader, NULL, "the header is not a JSON object");
    json_free(json);
    return !reader.failed;
}

const SafetensorsEntry *safetensors_find(const Safetensors *safetensors, const char *name)
{
    SafetensorsEntry wanted = { .name = name };
    if (!safetensors->n_entries)
        return NULL;
    return bsearch(&wanted, safetensors->entries, (size_t)safetensors->n_entries, sizeof wanted, compare_name);
}
