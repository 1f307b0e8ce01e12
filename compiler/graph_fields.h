/* Fields of JSON objects, read with their checks: types, ranges, unknown and missing keys.
 *
 * Every reader returns false after reporting and leaves the output as it was; an absent optional
 * field is not a failure. Words in messages name the key, what was found and what was expected.
 */
#ifndef MOSSC_COMPILER_GRAPH_FIELDS_H
#define MOSSC_COMPILER_GRAPH_FIELDS_H

#include "json.h"

typedef struct {
    Arena *arena;
    Diags *diags;
    const Json *json;
    bool failed;              /* something was reported through these functions */
} Fields;

typedef enum { FIELD_OPTIONAL, FIELD_REQUIRED } FieldNeed;

/* Report at `value` itself, or at its key. */
void field_report(Fields *fields, DiagId id, const JsonValue *value, bool key, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void field_note(Fields *fields, const JsonValue *value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "a string", "an array": what `value` is, for messages. */
const char *field_type(const JsonValue *value);
const JsonValue *field_find(const JsonValue *object, const char *key);
/* Reports when the key is required and absent; `where` says of what: "an mlp layer". */
const JsonValue *field_get(Fields *fields, const JsonValue *object, const char *key, FieldNeed need,
                           const char *where);

/* `value` as a whole number in [1, max]; `name` is how messages call it. */
bool field_whole(Fields *fields, const JsonValue *value, const char *name, int64_t max, int64_t *out);
bool field_size(Fields *fields, const JsonValue *object, const char *key, int64_t max, int64_t *out);
bool field_bool(Fields *fields, const JsonValue *object, const char *key, bool *out);
/* A number that stays finite as float32, `least` or more; `above` excludes `least` itself. */
bool field_number(Fields *fields, const JsonValue *object, const char *key, double least, bool above,
                  double *out);
/* One of `choices`, as its index. */
bool field_choice(Fields *fields, const JsonValue *value, const char *key, const char *const *choices,
                  int n_choices, int *out);

/* Every key of `object` that is not in `keys`, with a suggestion. False when there was one. */
bool field_known_keys(Fields *fields, const JsonValue *object, const char *where,
                      const char *const *keys, int n_keys);

#endif
