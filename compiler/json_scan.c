/* The strict scan of JSON: accepts RFC 8259 and notes where each value stands.
 *
 * Input: bytes. Output: one record a value, in document order, or the first fault.
 * Invariant: what passes is read by cJSON exactly as RFC 8259 says; cJSON alone would take
 * leading zeros, infinities, invalid UTF-8, U+0000 and would cut numbers of 64 characters.
 */
#include "json_scan.h"
#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NUMBER_LEN = 62 };   /* cJSON copies a number into 64 bytes */

/* `current`: record of the innermost value that is not finished, for pointers. */
typedef struct {
    Arena *arena;
    const char *text;
    size_t len, at;
    int depth, current;
    JsonRecord *records;
    int n_records, n_capacity;
    JsonFault fault;
} Scan;

/* Remember what is wrong at `offset`; the record is that of the value being scanned. */
__attribute__((format(printf, 4, 5)))
static bool refuse(Scan *scan, DiagId id, size_t offset, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *message = arena_vprintf(scan->arena, format, args);
    va_end(args);
    scan->fault = (JsonFault){ id, offset, scan->n_records ? scan->current : -1, message };
    return false;
}

static int peek(const Scan *scan)
{
    return scan->at < scan->len ? (unsigned char)scan->text[scan->at] : -1;
}

static void skip_space(Scan *scan)
{
    while (scan->at < scan->len && strchr(" \t\r\n", peek(scan)) && peek(scan) != 0)
        scan->at++;
}

/* What stands at the scan, for messages. */
static const char *found(const Scan *scan)
{
    int byte = peek(scan);
    if (byte < 0)
        return "the end of the file";
    if (byte < 0x20 || byte >= 0x7f)
        return arena_printf(scan->arena, "byte 0x%02x", (unsigned)byte);
    return arena_printf(scan->arena, "'%c'", byte);
}

/* Length of the UTF-8 sequence at the scan by RFC 3629, 0 if it is none. */
static size_t utf8_sequence(const Scan *scan)
{
    const unsigned char *text = (const unsigned char *)scan->text + scan->at;
    size_t left = scan->len - scan->at;
    unsigned char lead = text[0], low = 0x80, high = 0xbf;
    size_t len = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3
               : lead < 0xf5 ? 4 : 0;
    if (len < 2)
        return len;
    if (lead == 0xe0)
        low = 0xa0;      /* else overlong */
    if (lead == 0xed)
        high = 0x9f;     /* else a surrogate */
    if (lead == 0xf0)
        low = 0x90;
    if (lead == 0xf4)
        high = 0x8f;     /* else past U+10FFFF */
    for (size_t i = 1; i < len; i++, low = 0x80, high = 0xbf)
        if (i >= left || text[i] < low || text[i] > high)
            return 0;
    return len;
}

static int hex4(const Scan *scan, size_t at)
{
    int value = 0;
    for (size_t i = at; i < at + 4; i++) {
        int c = i < scan->len ? (unsigned char)scan->text[i] : 0;
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                  : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* \uXXXX at the scan, with its second half if it is a surrogate pair. */
static bool scan_unicode_escape(Scan *scan)
{
    size_t start = scan->at;
    const char *text = scan->text;
    int unit = hex4(scan, start + 2);
    if (unit < 0)
        return refuse(scan, DIAG_JSON_SYNTAX, start, "\\u needs four hexadecimal digits");
    if (unit == 0)
        return refuse(scan, DIAG_JSON_SYNTAX, start, "U+0000 is not allowed in a string");
    scan->at += 6;
    if (unit < 0xd800 || unit > 0xdfff)
        return true;
    bool pair = unit < 0xdc00 && scan->at + 1 < scan->len && text[scan->at] == '\\'
             && text[scan->at + 1] == 'u';
    int low = pair ? hex4(scan, scan->at + 2) : -1;
    if (low < 0xdc00 || low > 0xdfff)
        return refuse(scan, DIAG_JSON_UTF8, start, "\\u%04x is half of a surrogate pair", (unsigned)unit);
    scan->at += 6;
    return true;
}

static bool scan_escape(Scan *scan)
{
    size_t start = scan->at;
    int escape = start + 1 < scan->len ? (unsigned char)scan->text[start + 1] : 0;
    if (escape == 'u')
        return scan_unicode_escape(scan);
    if (!escape || !strchr("\"\\/bfnrt", escape))
        return refuse(scan, DIAG_JSON_SYNTAX, start, "unknown escape in a string");
    scan->at += 2;
    return true;
}

static bool scan_string(Scan *scan)
{
    size_t start = scan->at++;
    for (;;) {
        int byte = peek(scan);
        if (byte < 0)
            return refuse(scan, DIAG_JSON_SYNTAX, start, "this string has no end");
        if (byte == '"')
            break;
        if (byte == '\\') {
            if (!scan_escape(scan))
                return false;
            continue;
        }
        if (byte == '\n')
            return refuse(scan, DIAG_JSON_SYNTAX, start, "this string does not end on its line");
        if (byte < 0x20)
            return refuse(scan, DIAG_JSON_SYNTAX, scan->at,
                          "control character 0x%02x in a string: write it as an escape", (unsigned)byte);
        size_t len = utf8_sequence(scan);
        if (!len)
            return refuse(scan, DIAG_JSON_UTF8, scan->at, "byte 0x%02x is not UTF-8", (unsigned)byte);
        scan->at += len;
    }
    scan->at++;
    return true;
}

static size_t scan_digits(Scan *scan)
{
    size_t start = scan->at;
    while (peek(scan) >= '0' && peek(scan) <= '9')
        scan->at++;
    return scan->at - start;
}

static bool number_fits(Scan *scan, size_t start)
{
    size_t len = scan->at - start;
    if (len > MAX_NUMBER_LEN)
        return refuse(scan, DIAG_JSON_NUMBER, start, "a number of %zu characters, at most %d are read",
                      len, MAX_NUMBER_LEN);
    char digits[MAX_NUMBER_LEN + 1] = { 0 };
    memcpy(digits, scan->text + start, len);
    if (!isfinite(strtod(digits, NULL)))
        return refuse(scan, DIAG_JSON_NUMBER, start, "%s is too large for a number", digits);
    return true;
}

static bool scan_number(Scan *scan)
{
    size_t start = scan->at;
    if (peek(scan) == '-')
        scan->at++;
    bool zero = peek(scan) == '0';
    size_t n_digits = scan_digits(scan);
    if (n_digits == 0)
        return refuse(scan, DIAG_JSON_SYNTAX, scan->at, "expected a digit, found %s", found(scan));
    if (zero && n_digits > 1)
        return refuse(scan, DIAG_JSON_SYNTAX, start, "a number must not start with a zero");
    if (peek(scan) == '.') {
        scan->at++;
        if (!scan_digits(scan))
            return refuse(scan, DIAG_JSON_SYNTAX, scan->at,
                          "expected a digit after the point, found %s", found(scan));
    }
    if (peek(scan) == 'e' || peek(scan) == 'E') {
        scan->at++;
        if (peek(scan) == '+' || peek(scan) == '-')
            scan->at++;
        if (!scan_digits(scan))
            return refuse(scan, DIAG_JSON_SYNTAX, scan->at,
                          "expected a digit of the exponent, found %s", found(scan));
    }
    return number_fits(scan, start);
}

static bool scan_word(Scan *scan)
{
    static const char *const words[] = { "true", "false", "null" };
    for (int i = 0; i < 3; i++) {
        size_t len = strlen(words[i]);
        if (scan->len - scan->at >= len
            && memcmp(scan->text + scan->at, words[i], len) == 0) {
            scan->at += len;
            return true;
        }
    }
    return refuse(scan, DIAG_JSON_SYNTAX, scan->at, "expected a value, found %s", found(scan));
}

static int record_add(Scan *scan, size_t key, int parent, int index)
{
    if (scan->n_records == scan->n_capacity)
        scan->records = arena_grow(scan->arena, scan->records, sizeof *scan->records, &scan->n_capacity);
    scan->records[scan->n_records] = (JsonRecord){ scan->at, key, parent, index };
    return scan->current = scan->n_records++;
}

static bool scan_value(Scan *scan, size_t key, int parent, int index);

/* "key" : at the scan; *key is where the key starts. */
static bool scan_key(Scan *scan, size_t *key)
{
    if (peek(scan) != '"')
        return refuse(scan, DIAG_JSON_SYNTAX, scan->at, "expected a key in quotes, found %s", found(scan));
    *key = scan->at;
    if (!scan_string(scan))
        return false;
    skip_space(scan);
    if (peek(scan) != ':')
        return refuse(scan, DIAG_JSON_SYNTAX, scan->at, "expected ':' after a key, found %s", found(scan));
    scan->at++;
    skip_space(scan);
    return true;
}

/* The members of an object or the elements of an array, up to and with the bracket. */
static bool scan_container(Scan *scan, int self, char close)
{
    size_t open = scan->at++;
    if (++scan->depth > JSON_MAX_NESTING)
        return refuse(scan, DIAG_JSON_NESTING, open, "nested deeper than %d levels", JSON_MAX_NESTING);
    skip_space(scan);
    for (int index = 0; index > 0 || peek(scan) != close; index++) {
        size_t key = JSON_NO_KEY;
        if (close == '}' && !scan_key(scan, &key))
            return false;
        if (!scan_value(scan, key, self, index))
            return false;
        scan->current = self;
        skip_space(scan);
        if (peek(scan) == close)
            break;
        if (peek(scan) != ',')
            return refuse(scan, DIAG_JSON_SYNTAX, scan->at, "expected ',' or '%c', found %s", close,
                          found(scan));
        size_t comma = scan->at++;
        skip_space(scan);
        if (peek(scan) == close)
            return refuse(scan, DIAG_JSON_SYNTAX, comma, "a comma before '%c'", close);
    }
    scan->at++;
    scan->depth--;
    return true;
}

static bool scan_value(Scan *scan, size_t key, int parent, int index)
{
    int self = record_add(scan, key, parent, index);
    int byte = peek(scan);
    if (byte == '{')
        return scan_container(scan, self, '}');
    if (byte == '[')
        return scan_container(scan, self, ']');
    if (byte == '"')
        return scan_string(scan);
    if (byte == '-' || (byte >= '0' && byte <= '9'))
        return scan_number(scan);
    return scan_word(scan);
}

static bool scan_document(Scan *scan)
{
    if (scan->len >= 3 && memcmp(scan->text, "\xef\xbb\xbf", 3) == 0)
        return refuse(scan, DIAG_JSON_SYNTAX, 0, "a byte order mark: save the file without one");
    skip_space(scan);
    if (peek(scan) < 0)
        return refuse(scan, DIAG_JSON_SYNTAX, scan->at, "no JSON value, the text is empty");
    if (!scan_value(scan, JSON_NO_KEY, JSON_NO_PARENT, 0))
        return false;
    scan->current = 0;
    skip_space(scan);
    return peek(scan) < 0
        || refuse(scan, DIAG_JSON_SYNTAX, scan->at, "expected the end of the file, found %s", found(scan));
}

bool json_scan(Arena *arena, const char *text, size_t len, JsonScan *result)
{
    Scan scan = { .arena = arena, .text = text, .len = len };
    bool good = scan_document(&scan);
    *result = (JsonScan){ scan.records, scan.n_records, scan.fault };
    return good;
}
