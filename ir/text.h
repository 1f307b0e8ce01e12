/* Text: a string that grows, for everything mossc prints or emits.
 *
 * The buffer is always NUL-terminated. A bug (not the user's input) aborts through BUG below.
 */
#ifndef MOSSC_IR_TEXT_H
#define MOSSC_IR_TEXT_H

#include <stddef.h>

typedef struct { char *data; size_t len, capacity; } Text;   /* zero-initialise to use */

void text_printf(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_append(Text *text, const char *bytes, size_t len);
void text_free(Text *text);

/* Shortest decimal form that reads back as the same double, e.g. 1e-05, 10000, 0.1. */
void text_double(Text *text, double value);

/* `text` between quotes, escaped for JSON. */
void text_json_string(Text *text, const char *string);

/* A broken invariant of mossc itself: prints file:line and the message, then aborts. */
#define BUG(...) bug_abort(__FILE__, __LINE__, __VA_ARGS__)
_Noreturn void bug_abort(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
