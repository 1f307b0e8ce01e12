/* Fields of JSON objects: types, ranges, unknown keys and the words to say so.
 *
 * Input: values of a strict JSON document. Output: checked numbers, flags and choices.
 * Invariant: cJSON holds every number as a double, so a whole number is one whose floor is itself
 * and that is small enough (2^53) for the double to be exact.
 */
#include "graph_fields.h"

#include "closest.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

void field_report(Fields *fields, DiagId id, const JsonValue *value, bool key, const char *format, ...)
{
    Place at = json_place(fields->json, value, key);
    va_list args;
    va_start(args, format);
    diag_report(fields->diags, id, &at, "%s", arena_vprintf(fields->arena, format, args));
    va_end(args);
    fields->failed = true;
}

void field_note(Fields *fields, const JsonValue *value, const char *format, ...)
{
    Place at = json_place(fields->json, value, false);
    va_list args;
    va_start(args, format);
    diag_note(fields->diags, &at, "%s", arena_vprintf(fields->arena, format, args));
    va_end(args);
}

const char *field_type(const JsonValue *value)
{
    return cJSON_IsNull(value) ? "null" : cJSON_IsTrue(value) ? "true" : cJSON_IsFalse(value) ? "false"
         : cJSON_IsNumber(value) ? "a number" : cJSON_IsString(value) ? "a string"
         : cJSON_IsArray(value) ? "an array" : "an object";
}

const JsonValue *field_find(const JsonValue *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* The pointer names the member that should be there. */
static void missing_report(Fields *fields, const JsonValue *object, const char *key, const char *where)
{
    Place at = json_place(fields->json, object, false);
    at.pointer = arena_printf(fields->arena, "%s/%s", at.pointer, key);
    diag_report(fields->diags, DIAG_GRAPH_MISSING, &at, "%s needs \"%s\"", where, key);
    fields->failed = true;
}

const JsonValue *field_get(Fields *fields, const JsonValue *object, const char *key, FieldNeed need,
                           const char *where)
{
    const JsonValue *value = field_find(object, key);
    if (!value && need == FIELD_REQUIRED)
        missing_report(fields, object, key, where);
    return value;
}

static const char *number_text(Fields *fields, double number)
{
    Text text = { 0 };
    text_double(&text, number);
    const char *copy = arena_strdup(fields->arena, text.data);
    text_free(&text);
    return copy;
}

bool field_whole(Fields *fields, const JsonValue *value, const char *name, int64_t max, int64_t *out)
{
    if (!cJSON_IsNumber(value)) {
        field_report(fields, DIAG_GRAPH_TYPE, value, false, "%s: expected a whole number, found %s", name,
                     field_type(value));
        return false;
    }
    double number = value->valuedouble;
    const char *found = number_text(fields, number);
    if (floor(number) != number)
        field_report(fields, DIAG_GRAPH_RANGE, value, false, "%s: %s is not a whole number", name, found);
    else if (number < 1)
        field_report(fields, DIAG_GRAPH_RANGE, value, false, "%s: %s is too small, at least 1", name, found);
    else if (number > 0x1p53 || (int64_t)number > max)
        field_report(fields, DIAG_GRAPH_RANGE, value, false, "%s: %s is too large, at most %lld", name,
                     found, (long long)max);
    else {
        *out = (int64_t)number;
        return true;
    }
    return false;
}

bool field_size(Fields *fields, const JsonValue *object, const char *key, int64_t max, int64_t *out)
{
    const JsonValue *value = field_find(object, key);
    return !value || field_whole(fields, value, key, max, out);
}

bool field_bool(Fields *fields, const JsonValue *object, const char *key, bool *out)
{
    const JsonValue *value = field_find(object, key);
    if (!value)
        return true;
    if (!cJSON_IsBool(value)) {
        field_report(fields, DIAG_GRAPH_TYPE, value, false, "%s: expected true or false, found %s", key,
                     field_type(value));
        return false;
    }
    *out = cJSON_IsTrue(value);
    return true;
}

bool field_number(Fields *fields, const JsonValue *object, const char *key, double least, bool above,
                  double *out)
{
    const JsonValue *value = field_find(object, key);
    if (!value)
        return true;
    if (!cJSON_IsNumber(value)) {
        field_report(fields, DIAG_GRAPH_TYPE, value, false, "%s: expected a number, found %s", key,
                     field_type(value));
        return false;
    }
    double number = value->valuedouble;
    float rounded = (float)number;   /* what the generated code will compute with */
    if (!isfinite(rounded) || (double)rounded < least || (above && (double)rounded <= least)) {
        field_report(fields, DIAG_GRAPH_RANGE, value, false, "%s: %s is out of range, expected %s %s and finite in float32",
                     key, number_text(fields, number), above ? "more than" : "at least",
                     number_text(fields, least));
        return false;
    }
    *out = number + 0.0;   /* -0 becomes 0 */
    return true;
}

static const char *choices_text(Fields *fields, const char *const *choices, int n_choices, const char *last)
{
    Text text = { 0 };
    for (int i = 0; i < n_choices; i++)
        text_printf(&text, "%s\"%s\"", i == 0 ? "" : i + 1 < n_choices ? ", " : last, choices[i]);
    const char *copy = arena_strdup(fields->arena, text.data);
    text_free(&text);
    return copy;
}

bool field_choice(Fields *fields, const JsonValue *value, const char *key, const char *const *choices,
                  int n_choices, int *out)
{
    const char *expected = choices_text(fields, choices, n_choices, " or ");
    if (!cJSON_IsString(value)) {
        field_report(fields, DIAG_GRAPH_TYPE, value, false, "%s: expected %s, found %s", key, expected,
                     field_type(value));
        return false;
    }
    for (int i = 0; i < n_choices; i++)
        if (strcmp(choices[i], value->valuestring) == 0) {
            *out = i;
            return true;
        }
    const char *close = closest_name(value->valuestring, choices, n_choices);
    field_report(fields, DIAG_GRAPH_VALUE, value, false, "%s: unknown value \"%.60s\", expected %s%s%s%s", key,
                 value->valuestring, expected, close ? "; did you mean \"" : "", close ? close : "",
                 close ? "\"?" : "");
    return false;
}

bool field_known_keys(Fields *fields, const JsonValue *object, const char *where,
                      const char *const *keys, int n_keys)
{
    bool known_all = true;
    for (const cJSON *member = object->child; member; member = member->next) {
        bool known = false;
        for (int i = 0; i < n_keys; i++)
            known |= strcmp(keys[i], member->string) == 0;
        if (known || diags_full(fields->diags))
            continue;
        known_all = false;
        const char *close = closest_name(member->string, keys, n_keys);
        field_report(fields, DIAG_GRAPH_KEY, member, true, "unknown key \"%.60s\" in %s%s%s%s",
                     member->string, where, close ? "; did you mean \"" : "", close ? close : "",
                     close ? "\"?" : "");
        if (close)
            continue;
        Place at = json_place(fields->json, member, true);
        at.pointer = NULL;
        diag_note(fields->diags, &at, "%s has %s", where, choices_text(fields, keys, n_keys, " and "));
    }
    return known_all;
}
