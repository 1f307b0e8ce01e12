/* JSON: a strict scan decides what is accepted and takes positions; cJSON builds the tree.
 *
 * Input: bytes. Output: cJSON's tree, each value with its line, column and JSON pointer.
 * Invariant: records stand in document order, the order of a pre-order walk of the tree, which is
 * how a value finds its record. Nothing reaches cJSON that it reads differently from RFC 8259.
 */
#include "json.h"
#include "json_scan.h"

#include <cjson/cJSON.h>

#include <stdlib.h>
#include <string.h>

typedef struct { const cJSON *value; int record; } Entry;

struct Json {
    Arena *arena;
    Diags *diags;
    const char *file, *text;
    size_t len;
    size_t *lines;            /* offset at which each line starts */
    int n_lines;
    JsonRecord *records;
    int n_records;
    Entry *entries;           /* sorted by value */
    cJSON *root;
};

/* --- places --- */

static void lines_index(Json *json)
{
    int n = 1;
    for (size_t i = 0; i < json->len; i++)
        n += json->text[i] == '\n';
    json->lines = arena_array(json->arena, size_t, (size_t)n);
    for (size_t i = 0; i < json->len; i++)
        if (json->text[i] == '\n')
            json->lines[++json->n_lines] = i + 1;
    json->n_lines = n;
}

static Place place_at(const Json *json, size_t offset)
{
    int low = 0, high = json->n_lines - 1;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        if (json->lines[middle] <= offset)
            low = middle;
        else
            high = middle - 1;
    }
    return (Place){ .file = json->file, .text = json->text, .line = low + 1,
                    .col = (int)(offset - json->lines[low]) + 1 };
}

/* A scanned key, its escapes resolved. Its closing quote is known to be there. */
static const char *key_decode(const Json *json, size_t key)
{
    size_t len = 1;
    while (json->text[key + len] != '"')
        len += json->text[key + len] == '\\' ? 2 : 1;
    cJSON *decoded = cJSON_ParseWithLength(json->text + key, len + 1);
    const char *copy = decoded ? arena_strdup(json->arena, decoded->valuestring) : "?";
    cJSON_Delete(decoded);
    return copy;
}

static void pointer_append(Text *pointer, const char *key)
{
    text_append(pointer, "/", 1);
    for (; *key; key++)
        if (*key == '~')
            text_append(pointer, "~0", 2);
        else if (*key == '/')
            text_append(pointer, "~1", 2);
        else
            text_append(pointer, key, 1);
}

static const char *pointer_of(const Json *json, int record)
{
    int path[JSON_MAX_NESTING + 2], n = 0;
    for (int i = record; json->records[i].parent != JSON_NO_PARENT; i = json->records[i].parent)
        path[n++] = i;
    Text pointer = { 0 };
    text_append(&pointer, "", 0);
    while (n > 0) {
        const JsonRecord *step = &json->records[path[--n]];
        if (step->key != JSON_NO_KEY)
            pointer_append(&pointer, key_decode(json, step->key));
        else
            text_printf(&pointer, "/%d", step->index);
    }
    const char *copy = arena_strdup(json->arena, pointer.data);
    text_free(&pointer);
    return copy;
}

static int entry_compare(const void *a, const void *b)
{
    const cJSON *left = ((const Entry *)a)->value, *right = ((const Entry *)b)->value;
    return ((uintptr_t)left > (uintptr_t)right) - ((uintptr_t)left < (uintptr_t)right);
}

Place json_place(const Json *json, const JsonValue *value, bool key)
{
    Entry wanted = { .value = value };
    const Entry *entry = bsearch(&wanted, json->entries, (size_t)json->n_records, sizeof wanted,
                                 entry_compare);
    if (!entry)
        BUG("a value that is not of this document");
    const JsonRecord *record = &json->records[entry->record];
    Place at = place_at(json, key && record->key != JSON_NO_KEY ? record->key : record->value);
    at.pointer = pointer_of(json, entry->record);
    return at;
}

/* --- the tree --- */

static void entries_add(Json *json, const cJSON *value, int *n)
{
    if (*n >= json->n_records)
        BUG("cJSON sees more values than the scan");
    json->entries[*n] = (Entry){ value, *n };
    ++*n;
    for (const cJSON *child = value->child; child; child = child->next)
        entries_add(json, child, n);
}

typedef struct { const cJSON *value, *first; size_t index; } Member;

static int member_compare_key(const void *a, const void *b)
{
    const Member *left = a, *right = b;
    int order = strcmp(left->value->string, right->value->string);
    return order ? order : (left->index > right->index) - (left->index < right->index);
}

static int member_compare_index(const void *a, const void *b)
{
    const Member *left = a, *right = b;
    return (left->index > right->index) - (left->index < right->index);
}

/* Leaves at the front of `members` those whose key stood before; returns how many. */
static size_t members_keep_repeated(Member *members, size_t n)
{
    size_t n_repeated = 0;
    qsort(members, n, sizeof *members, member_compare_key);
    const cJSON *first = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!first || strcmp(first->string, members[i].value->string) != 0) {
            first = members[i].value;
            continue;
        }
        members[n_repeated] = members[i];
        members[n_repeated++].first = first;
    }
    qsort(members, n_repeated, sizeof *members, member_compare_index);
    return n_repeated;
}

/* Keys compare after decoding: "a" and "\u0061" are the same key. */
static bool object_check_keys(const Json *json, const cJSON *object)
{
    size_t n = 0;
    Member *members = arena_array(json->arena, Member, (size_t)cJSON_GetArraySize(object));
    for (const cJSON *child = object->child; child; child = child->next, n++)
        members[n] = (Member){ child, NULL, n };
    size_t n_repeated = members_keep_repeated(members, n);
    for (size_t i = 0; i < n_repeated && !diags_full(json->diags); i++) {
        Place here = json_place(json, members[i].value, true);
        Place there = json_place(json, members[i].first, true);
        there.pointer = NULL;
        diag_report(json->diags, DIAG_JSON_DUPLICATE, &here, "key \"%s\" appears twice in one object",
                    members[i].value->string);
        diag_note(json->diags, &there, "first one here");
    }
    return n_repeated == 0;
}

static bool check_keys(const Json *json, const cJSON *value)
{
    bool good = !cJSON_IsObject(value) || object_check_keys(json, value);
    for (const cJSON *child = value->child; child; child = child->next)
        good &= check_keys(json, child);
    return good;
}

static bool tree_build(Json *json)
{
    json->root = cJSON_ParseWithLength(json->text, json->len);
    if (!json->root) {
        Place at = place_at(json, 0);
        diag_report(json->diags, DIAG_JSON_SYNTAX, &at, "the JSON library cannot read this text");
        return false;
    }
    json->entries = arena_array(json->arena, Entry, (size_t)json->n_records);
    int n = 0;
    entries_add(json, json->root, &n);
    if (n != json->n_records)
        BUG("cJSON sees fewer values than the scan");
    qsort(json->entries, (size_t)n, sizeof *json->entries, entry_compare);
    return true;
}

static bool scan(Json *json)
{
    JsonScan result;
    bool good = json_scan(json->arena, json->text, json->len, &result);
    json->records = result.records;
    json->n_records = result.n_records;
    if (good)
        return true;
    Place at = place_at(json, result.fault.offset);
    at.pointer = result.fault.record >= 0 ? pointer_of(json, result.fault.record) : "";
    diag_report(json->diags, result.fault.id, &at, "%s", result.fault.message);
    return false;
}

Json *json_parse(Arena *arena, Diags *diags, const char *file, const char *text, size_t len,
                 size_t max_len)
{
    if (len > max_len) {
        diag_report(diags, DIAG_JSON_SIZE, &(Place){ .file = file }, "%zu bytes, at most %zu are read",
                    len, max_len);
        return NULL;
    }
    Json *json = arena_one(arena, Json);
    *json = (Json){ .arena = arena, .diags = diags, .len = len };
    json->file = arena_strdup(arena, file);
    json->text = arena_strndup(arena, text, len);
    lines_index(json);
    if (!scan(json) || !tree_build(json))
        return NULL;
    if (!check_keys(json, json->root)) {
        json_free(json);
        return NULL;
    }
    return json;
}

const JsonValue *json_root(const Json *json)
{
    return json->root;
}

void json_free(Json *json)
{
    if (!json)
        return;
    cJSON_Delete(json->root);
    json->root = NULL;
}
