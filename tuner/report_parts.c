/* Report, its parts: text, numbers and scales. */
#include "report_parts.h"

#include <math.h>
#include <string.h>

/* Bytes of the UTF-8 character at `text`; 1 for bytes that begin none. */
static size_t character_len(const unsigned char *text)
{
    size_t len = *text >= 0xf0 ? 4 : *text >= 0xe0 ? 3 : *text >= 0xc2 ? 2 : 1;
    for (size_t i = 1; i < len; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 1;
    return len;
}

void html_text(Text *out, const char *text, int most)
{
    int n = 0;
    for (const char *at = text; *at; n++) {
        size_t len = character_len((const unsigned char *)at);
        if (most && n == most - 1 && at[len]) {
            text_printf(out, "\xe2\x80\xa6");
            return;
        }
        const char *name = *at == '&' ? "&amp;" : *at == '<' ? "&lt;" : *at == '>' ? "&gt;" : *at == '"' ? "&quot;"
            : NULL;
        unsigned char byte = (unsigned char)*at;
        if (name)
            text_printf(out, "%s", name);
        else if (byte < 0x20 || byte == 0x7f)
            text_append(out, " ", 1);
        else if (len == 1 && byte >= 0x80)
            text_append(out, "?", 1);
        else
            text_append(out, at, len);
        at += len;
    }
}

const char *report_shape(Arena *arena, const RecordKey *key)
{
    Text text = { 0 };
    for (const char *at = key->shape; *at;) {
        size_t len = strcspn(at, " ");
        if (len < 2 || strncmp(at + len - 2, "=0", 2) != 0)
            text_printf(&text, "%s%.*s", text.len ? " " : "", (int)len, at);
        at += len + (at[len] == ' ');
    }
    text_printf(&text, "%s%s", text.len && *key->dtypes ? ", " : "", key->dtypes);
    const char *shape = arena_strdup(arena, text.data);
    text_free(&text);
    return shape;
}

void report_put_amount(Text *out, double value)
{
    static const char *const prefixes[] = { "", " k", " M", " G", " T", " P" };
    int i = 0;
    while (i < 5 && value >= 999.5) {
        value /= 1000;
        i++;
    }
    text_printf(out, "%.*f%s", value < 9.995 && value != floor(value) ? value < 0.0995 ? 2 : 1 : 0, value, prefixes[i]);
}

void report_put_seconds(Text *out, double seconds)
{
    Text plain = { 0 };
    summary_put_seconds(seconds, &plain);
    const char *micro = strstr(plain.data, " us");
    text_printf(out, "%.*s%s", micro ? (int)(micro - plain.data) : (int)plain.len, plain.data, micro ? " \xc2\xb5s"
                : "");
    text_free(&plain);
}

double report_step(double range, int n)
{
    double step = pow(10, floor(log10(range / n)));
    const double factors[] = { 1, 2, 5, 10 };
    for (int i = 0; i < 4; i++)
        if (range / (step * factors[i]) <= n)
            return step * factors[i];
    return step * 10;
}

double scale_at(const Scale *s, double value)
{
    double part = s->logarithmic ? log(value / s->from) / log(s->to / s->from) : (value - s->from) / (s->to - s->from);
    return s->begin + part * (s->end - s->begin);
}
