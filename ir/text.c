/* Text: a growing string, doubles printed exactly, and the abort for broken invariants.
 *
 * Input: printf formats and bytes. Output: one NUL-terminated buffer owned by the caller.
 * Invariant: data[len] is NUL whenever data is not NULL.
 */
#include "text.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void text_reserve(Text *text, size_t more)
{
    if (more >= SIZE_MAX / 4 - text->len) {
        fprintf(stderr, "mossc: error[run]: out of memory: a text of %zu more bytes\n", more);
        exit(3);
    }
    size_t need = text->len + more + 1;
    if (need <= text->capacity)
        return;
    size_t capacity = text->capacity ? text->capacity : 256;
    while (capacity < need)
        capacity *= 2;
    char *data = realloc(text->data, capacity);
    if (!data) {
        fprintf(stderr, "mossc: error[run]: out of memory: %zu bytes asked for\n", capacity);
        exit(3);
    }
    text->data = data;
    text->capacity = capacity;
}

void text_append(Text *text, const char *bytes, size_t len)
{
    text_reserve(text, len);
    if (len)
        memcpy(text->data + text->len, bytes, len);
    text->len += len;
    text->data[text->len] = 0;
}

void text_printf(Text *text, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (len < 0)
        BUG("bad format \"%s\"", format);
    text_reserve(text, (size_t)len);
    vsnprintf(text->data + text->len, (size_t)len + 1, format, args);
    text->len += (size_t)len;
    va_end(args);
}

void text_free(Text *text)
{
    free(text->data);
    *text = (Text){ 0 };
}

void text_double(Text *text, double value)
{
    if (!isfinite(value)) {
        text_printf(text, isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return;
    }
    char digits[64];
    int precision = 0;
    do {
        precision++;
        snprintf(digits, sizeof digits, "%.*e", precision - 1, value);
    } while (precision < 17 && strtod(digits, NULL) != value);
    /* %g turns to the exponent form once the exponent reaches its precision; whole numbers that a
     * reader would write out in full (10000) need more of it than they have significant digits. */
    int exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent < 16 && precision <= exponent)
        precision = exponent + 1;
    text_printf(text, "%.*g", precision, value);
}

_Noreturn void bug_abort(const char *file, int line, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "%s:%d: bug in mossc: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

void text_json_string(Text *text, const char *string)
{
    text_append(text, "\"", 1);
    for (; *string; string++)
        if (*string == '"' || *string == '\\')
            text_printf(text, "\\%c", *string);
        else if ((unsigned char)*string < 0x20)
            text_printf(text, "\\u%04x", (unsigned)*string);
        else
            text_append(text, string, 1);
    text_append(text, "\"", 1);
}
