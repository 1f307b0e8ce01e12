/* JSON: cJSON's tree with what cJSON lacks.
 *
 * Accepts strict RFC 8259 only: valid UTF-8, no duplicate keys, no U+0000 in strings, no leading
 * zeros, finite numbers, bounded nesting and size. Every value knows its line, column and JSON
 * pointer. cJSON builds the tree; a strict scan beforehand decides acceptance and takes positions.
 */
#ifndef MOSSC_COMPILER_JSON_H
#define MOSSC_COMPILER_JSON_H

#include "../ir/arena.h"
#include "../ir/diag.h"

#include <stdbool.h>
#include <stdint.h>

enum { JSON_MAX_NESTING = 64, JSON_MAX_BYTES = 16 << 20 };

typedef struct Json Json;               /* one document */
typedef struct cJSON JsonValue;         /* one value of it */

/* Parse `text` (len bytes, not necessarily NUL-terminated). NULL after reporting what is wrong. */
Json *json_parse(Arena *arena, Diags *diags, const char *file, const char *text, size_t len,
                 size_t max_len);
const JsonValue *json_root(const Json *json);
/* Line, column and pointer of a value; of its key when `key` and the value is a member. */
Place json_place(const Json *json, const JsonValue *value, bool key);
/* Frees cJSON's tree; Places handed out stay valid (they live in the arena). */
void json_free(Json *json);

#endif
