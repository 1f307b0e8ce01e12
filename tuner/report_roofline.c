/* Report: where the kernels of a machine stand below what it can do.
 *
 * Input: operations and bytes of a call, times of default and best, and the machine's ceilings as its searches measured
 * them. Output: a chart of operations a second over operations a byte, both logarithmic, an arrow a kernel from the
 * default to the best.
 * Invariant: numbers stand where no other number and no dot is.
 */
#include "report_parts.h"

#include <math.h>

enum { WIDTH = 720, HEIGHT = 400, LEFT = 66, RIGHT = 706, TOP = 18, BOTTOM = 348, MOST_BOXES = 1024 };

typedef struct { double x, y, half_width, half_height; } Box;
typedef struct { int number; double intensity, before, after; } Dot;
typedef struct {
    Dot *dots;
    int n, n_boxes;
    double peak_operations, peak_bytes;
    Scale x, y;
    Box boxes[MOST_BOXES];       /* taken by dots and numbers */
} Roofline;

static void collect(Arena *arena, const Machine *machine, Roofline *roof)
{
    roof->dots = arena_array(arena, Dot, (size_t)machine->n);
    for (int i = 0; i < machine->n; i++) {
        const KernelSummary *k = machine->kernels[i];
        roof->peak_operations = fmax(roof->peak_operations, k->peak_operations);
        roof->peak_bytes = fmax(roof->peak_bytes, k->peak_bytes);
        if (!(k->operations > 0 && k->bytes > 0 && k->best.seconds > 0))
            continue;
        double before = k->best.default_seconds > 0 ? k->operations / k->best.default_seconds : 0;
        roof->dots[roof->n++] = (Dot){ i + 1, k->operations / k->bytes, before, k->operations / k->best.seconds };
    }
}

static double decade_below(double value) { return pow(10, floor(log10(value))); }

static void set_scales(Roofline *roof)
{
    bool roofed = roof->peak_operations > 0 && roof->peak_bytes > 0;
    double ridge = roofed ? roof->peak_operations / roof->peak_bytes : roof->dots[0].intensity;
    double left = ridge / 3, right = ridge * 3, low = roof->dots[0].after, high = roof->dots[0].after;
    for (int i = 0; i < roof->n; i++) {
        const Dot *dot = &roof->dots[i];
        left = fmin(left, dot->intensity / 1.5);
        right = fmax(right, dot->intensity * 1.5);
        low = fmin(low, dot->before > 0 ? fmin(dot->before, dot->after) : dot->after);
        high = fmax(high, fmax(dot->before, dot->after));
    }
    high = roofed ? fmax(high, roof->peak_operations) : high;
    roof->x = (Scale){ left, right, LEFT, RIGHT, true };
    roof->y = (Scale){ low / 2, high * 1.6, BOTTOM, TOP, true };
}

static void put_ticks(const Roofline *roof, Text *out)
{
    for (double v = decade_below(roof->x.from) * 10; v <= roof->x.to; v *= 10) {
        double x = scale_at(&roof->x, v);
        text_printf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/><text class=\"tick "
                    "middle\" x=\"%.1f\" y=\"%d\">", x, x, TOP, BOTTOM, x, BOTTOM + 18);
        report_put_amount(out, v);
        text_printf(out, "</text>\n");
    }
    for (double v = decade_below(roof->y.from) * 10; v <= roof->y.to; v *= 10) {
        double y = scale_at(&roof->y, v);
        text_printf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text class=\"tick end\" "
                    "x=\"%d\" y=\"%.1f\">", LEFT, RIGHT, y, y, LEFT - 8, y + 4);
        report_put_amount(out, v);
        text_printf(out, "</text>\n");
    }
    text_printf(out, "<text class=\"tick middle\" x=\"%d\" y=\"%d\">operations a byte of memory traffic</text>\n",
                (LEFT + RIGHT) / 2, BOTTOM + 40);
    text_printf(out, "<text class=\"tick middle\" transform=\"translate(14 %d) rotate(-90)\">operations a "
                "second</text>\n", (TOP + BOTTOM) / 2);
}

/* ---- room ---- */

static void take(Roofline *roof, Box box)
{
    if (roof->n_boxes < MOST_BOXES)
        roof->boxes[roof->n_boxes++] = box;
}

static bool is_free(const Roofline *roof, Box box)
{
    if (box.x - box.half_width < LEFT || box.x + box.half_width > RIGHT || box.y - box.half_height < TOP
        || box.y + box.half_height > BOTTOM)
        return false;
    for (int i = 0; i < roof->n_boxes; i++)
        if (fabs(box.x - roof->boxes[i].x) < box.half_width + roof->boxes[i].half_width
            && fabs(box.y - roof->boxes[i].y) < box.half_height + roof->boxes[i].half_height)
            return false;
    return true;
}

/* ---- ceilings ---- */

/* Above the line or below it, from its right end on to the left. */
static void put_flat_words(Roofline *roof, double ridge, double y, Text *out)
{
    enum { HALF = 38 };
    Box box = { RIGHT - HALF, y - 11, HALF, 8 };
    for (double x = RIGHT - HALF; x > ridge + HALF && !is_free(roof, box); x -= 20)
        for (int below = 0; below < 2 && !is_free(roof, box); below++)
            box = (Box){ x, y + (below ? 12 : -11), HALF, 8 };
    take(roof, box);
    text_printf(out, "<text class=\"roof end\" x=\"%.1f\" y=\"%.1f\">", box.x + HALF, box.y + 4);
    report_put_amount(out, roof->peak_operations);
    text_printf(out, "op/s</text>\n");
}

static void put_ceilings(Roofline *roof, Text *out)
{
    if (!(roof->peak_operations > 0 && roof->peak_bytes > 0))
        return;
    double ridge = roof->peak_operations / roof->peak_bytes, top = scale_at(&roof->y, roof->peak_operations);
    double x = scale_at(&roof->x, ridge), begin = fmax(roof->x.from, roof->y.from / roof->peak_bytes);
    double x0 = scale_at(&roof->x, begin), y0 = scale_at(&roof->y, begin * roof->peak_bytes);
    text_printf(out, "<path class=\"roof\" d=\"M%.1f %.1fL%.1f %.1fH%d\"/>\n", x0, y0, x, top, RIGHT);
    put_flat_words(roof, x, top, out);
    double angle = atan2(top - y0, x - x0) * 180 / M_PI, mx = (x0 + x) / 2, my = (y0 + top) / 2;
    text_printf(out, "<text class=\"roof middle\" transform=\"translate(%.1f %.1f) rotate(%.1f)\" dy=\"-7\">", mx, my,
                angle);
    report_put_amount(out, roof->peak_bytes);
    text_printf(out, "B/s</text>\n");
    double half = 34 * fabs(cos(angle * M_PI / 180)) + 8;      /* numbers keep clear of it */
    take(roof, (Box){ mx - 8, my - 10, half, half * fabs(tan(angle * M_PI / 180)) + 8 });
}

/* ---- dots and numbers ---- */

/* Around the dot, ever farther away, until there is room. */
static Box find_place(const Roofline *roof, double x, double y, int number)
{
    double half_width = number < 10 ? 5 : 9;
    for (double radius = 14; radius < 200; radius += 7)
        for (int i = 0; i < 12; i++) {
            double angle = (double)i * M_PI / 6;
            Box box = { x + radius * cos(angle), y - radius * sin(angle), half_width, 7 };
            if (is_free(roof, box))
                return box;
        }
    return (Box){ x, y, half_width, 7 };
}

static void put_number(Roofline *roof, const Dot *dot, Text *out)
{
    double x = scale_at(&roof->x, dot->intensity), y = scale_at(&roof->y, dot->after);
    Box box = find_place(roof, x, y, dot->number);
    take(roof, box);
    if (hypot(box.x - x, box.y - y) > 18)
        text_printf(out, "<line class=\"lead\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x, y, box.x,
                    box.y);
    text_printf(out, "<text class=\"number middle\" x=\"%.1f\" y=\"%.1f\">%d</text>\n", box.x, box.y + 4, dot->number);
}

static void put_default(const Roofline *roof, const Dot *dot, Text *out)
{
    double x = scale_at(&roof->x, dot->intensity), y = scale_at(&roof->y, dot->after);
    if (!(dot->before > 0))
        return;
    double from = scale_at(&roof->y, dot->before);
    text_printf(out, "<line class=\"gain\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                     "<circle class=\"before\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n", x, x, from, y, x, from);
}

static void put_best(const Roofline *roof, const Machine *machine, const Dot *dot, Text *out)
{
    double x = scale_at(&roof->x, dot->intensity), y = scale_at(&roof->y, dot->after);
    text_printf(out, "<circle class=\"after\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"><title>%d ", x, y, dot->number);
    html_text(out, machine->kernels[dot->number - 1]->key->kernel, 0);
    text_printf(out, ": ");
    report_put_amount(out, dot->after);
    text_printf(out, "op/s at %.1f op/byte</title></circle>\n", dot->intensity);
}

static void take_dots(Roofline *roof)
{
    for (int i = 0; i < roof->n; i++) {
        const Dot *dot = &roof->dots[i];
        double x = scale_at(&roof->x, dot->intensity);
        take(roof, (Box){ x, scale_at(&roof->y, dot->after), 7, 7 });
        if (dot->before > 0)
            take(roof, (Box){ x, scale_at(&roof->y, dot->before), 6, 6 });
    }
}

void report_roofline(Arena *arena, const Machine *machine, Text *out)
{
    Roofline *roof = arena_one(arena, Roofline);
    collect(arena, machine, roof);
    if (roof->n == 0)
        return;
    set_scales(roof);
    text_printf(out, "<figure class=\"roofline\"><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"roofline\">\n",
                WIDTH, HEIGHT);
    put_ticks(roof, out);
    take_dots(roof);
    put_ceilings(roof, out);
    for (int i = 0; i < roof->n; i++)
        put_default(roof, &roof->dots[i], out);
    for (int i = 0; i < roof->n; i++)
        put_best(roof, machine, &roof->dots[i], out);
    for (int i = 0; i < roof->n; i++)
        put_number(roof, &roof->dots[i], out);
    text_printf(out, "</svg>%s</figure>\n", roof->peak_operations > 0 ? "" : "<small>No search measured what this "
                "machine can do at most.</small>");
}
