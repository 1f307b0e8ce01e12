/* Diagnostics: collect now, print together.
 *
 * Input: reports with places. Output: text of the form file:line:col: error[code]: message, then
 * the JSON pointer, the source line with a caret, and notes.
 * Invariant: nothing a user wrote reaches the terminal raw; control bytes and bytes that are not
 * UTF-8 are shown as '?', long lines and names are cut.
 */
#include "diag.h"

#include <stdarg.h>
#include <stdint.h>
#include <string.h>

enum { MAX_ITEMS = 256, MAX_MESSAGE = 1000, MAX_POINTER = 200, EXCERPT_BEFORE = 60, EXCERPT_AFTER = 60 };

typedef enum { SEVERITY_ERROR, SEVERITY_WARNING } Severity;
typedef enum { KIND_USER, KIND_USAGE, KIND_ENV } Kind;
typedef struct { const char *code; Severity severity; Kind kind; } Row;

static const Row rows[N_DIAGS] = {
#define DIAG(id, code, severity, kind) [DIAG_##id] = { code, SEVERITY_##severity, KIND_##kind },
#include "diag.def"
#undef DIAG
};

typedef struct {
    bool note;
    DiagId id;
    Place at;
    const char *message;
} Item;

struct Diags {
    Arena *arena;
    Item items[MAX_ITEMS];
    int n_items, n_errors, exit_code;
    bool dropped;       /* the last report was not kept, so its notes go too */
    bool more;          /* some error was not kept */
};

Diags *diags_new(Arena *arena)
{
    Diags *diags = arena_one(arena, Diags);
    diags->arena = arena;
    return diags;
}

const char *diag_code(DiagId id)
{
    if ((unsigned)id >= N_DIAGS)
        BUG("diagnostic %d", (int)id);
    return rows[id].code;
}

static void item_add(Diags *diags, bool note, DiagId id, const Place *at, const char *format,
                     va_list args)
{
    Item *item = &diags->items[diags->n_items++];
    item->note = note;
    item->id = id;
    if (at)
        item->at = *at;
    item->message = arena_vprintf(diags->arena, format, args);
}

static void count_error(Diags *diags, Kind kind)
{
    int code = kind == KIND_ENV ? 3 : kind == KIND_USAGE ? 2 : 1;
    if (code > diags->exit_code)
        diags->exit_code = code;
    diags->n_errors++;
    if (diags->n_errors > DIAG_MAX_ERRORS)
        diags->more = diags->dropped = true;
}

void diag_report(Diags *diags, DiagId id, const Place *at, const char *format, ...)
{
    diag_code(id);
    diags->dropped = false;
    if (rows[id].severity == SEVERITY_ERROR)
        count_error(diags, rows[id].kind);
    /* Errors always find room: they are few, and notes and warnings leave the last places free. */
    bool error = rows[id].severity == SEVERITY_ERROR;
    if (!error && diags->n_items >= MAX_ITEMS - DIAG_MAX_ERRORS)
        diags->dropped = true;
    if (diags->dropped)
        return;
    va_list args;
    va_start(args, format);
    item_add(diags, false, id, at, format, args);
    va_end(args);
}

void diag_note(Diags *diags, const Place *at, const char *format, ...)
{
    if (diags->dropped || diags->n_items >= MAX_ITEMS - DIAG_MAX_ERRORS)
        return;
    va_list args;
    va_start(args, format);
    item_add(diags, true, 0, at, format, args);
    va_end(args);
}

bool diags_failed(const Diags *diags)
{
    return diags->n_errors > 0;
}

bool diags_full(const Diags *diags)
{
    return diags->more;
}

int diags_exit_code(const Diags *diags)
{
    return diags->exit_code;
}

/* Length of the UTF-8 sequence at `text`, 0 if the bytes there are not one. */
static int utf8_len(const unsigned char *text, size_t left)
{
    unsigned char lead = text[0];
    int len = lead < 0x80 ? 1 : lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3
            : lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
    if (!len || (size_t)len > left)
        return 0;
    for (int i = 1; i < len; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    if ((lead == 0xe0 && text[1] < 0xa0) || (lead == 0xed && text[1] >= 0xa0)
        || (lead == 0xf0 && text[1] < 0x90) || (lead == 0xf4 && text[1] >= 0x90))
        return 0;
    /* C1 controls can drive a terminal as escape sequences do. */
    return len == 2 && lead == 0xc2 && text[1] < 0xa0 ? 0 : len;
}

/* Print at most `max` bytes of `text`; the characters printed are counted for the caret. */
static int put_clean(Text *out, const char *text, size_t len, size_t max)
{
    int n_chars = 0;
    size_t i = 0;
    while (i < len && i < max) {
        int step = utf8_len((const unsigned char *)text + i, len - i);
        unsigned char byte = (unsigned char)text[i];
        if (step == 0 || byte < 0x20 || byte == 0x7f) {
            text_append(out, byte == '\t' ? " " : "?", 1);
            step = 1;
        } else {
            text_append(out, text + i, (size_t)step);
        }
        i += (size_t)step;
        n_chars++;
    }
    if (i < len)
        text_append(out, "...", 3);
    return n_chars;
}

static const char *line_start(const char *text, int line)
{
    for (int i = 1; i < line; i++) {
        text = strchr(text, '\n');
        if (!text)
            return NULL;
        text++;
    }
    return text;
}

/* The source line, cut around the column, and a caret below the column's character. */
static void put_excerpt(Text *out, const Place *at)
{
    const char *line = at->text ? line_start(at->text, at->line) : NULL;
    if (!line || at->col < 1)
        return;
    size_t len = strcspn(line, "\n");
    if (len && line[len - 1] == '\r')
        len--;
    size_t caret = (size_t)at->col - 1;
    if (caret > len)
        caret = len;
    size_t begin = caret > EXCERPT_BEFORE ? caret - EXCERPT_BEFORE : 0;
    while (begin > 0 && begin < caret && ((unsigned char)line[begin] & 0xc0) == 0x80)
        begin++;
    text_printf(out, "%5d | %s", at->line, begin ? "..." : "");
    int n_chars = put_clean(out, line + begin, caret - begin, SIZE_MAX) + (begin ? 3 : 0);
    put_clean(out, line + caret, len - caret, EXCERPT_AFTER);
    text_printf(out, "\n      | %*s^\n", n_chars, "");
}

static void put_place(Text *out, const Place *at)
{
    if (!at->file) {
        text_printf(out, "mossc: ");
        return;
    }
    put_clean(out, at->file, strlen(at->file), SIZE_MAX);
    if (at->line > 0)
        text_printf(out, ":%d:%d", at->line, at->col);
    text_printf(out, ": ");
}

static void put_pointer(Text *out, const Place *at, const char *before, const char *after)
{
    if (!at->pointer)
        return;
    /* RFC 6901 writes the whole document as nothing at all, which a reader would take for a slip. */
    const char *pointer = *at->pointer ? at->pointer : "(root)";
    text_printf(out, "%s", before);
    put_clean(out, pointer, strlen(pointer), MAX_POINTER);
    text_printf(out, "%s", after);
}

static void put_item(Text *out, const Item *item)
{
    put_place(out, &item->at);
    if (item->note)
        text_printf(out, "note: ");
    else
        text_printf(out, "%s[%s]: ", rows[item->id].severity == SEVERITY_ERROR ? "error" : "warning",
                    rows[item->id].code);
    put_clean(out, item->message, strlen(item->message), MAX_MESSAGE);
    if (item->note) {
        put_pointer(out, &item->at, " (", ")");
        text_printf(out, "\n");
        return;
    }
    text_printf(out, "\n");
    put_pointer(out, &item->at, "  at ", "\n");
    put_excerpt(out, &item->at);
}

void diags_print(const Diags *diags, Text *out)
{
    for (int i = 0; i < diags->n_items; i++)
        put_item(out, &diags->items[i]);
    if (diags->more)
        text_printf(out, "mossc: too many errors; only the first %d are shown\n", DIAG_MAX_ERRORS);
}
