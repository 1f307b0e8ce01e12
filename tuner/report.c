/* Report: the page around the pictures.
 *
 * Input: a summary. Output: HTML with its style inside. Kernels are grouped by machine; in a group they have numbers.
 * Invariant: the same database gives the same page; nothing in it is fetched from anywhere.
 */
#include "report.h"

#include "report_parts.h"

#include <math.h>
#include <string.h>

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n<title>Tuning records</title>\n<style>\n"
    ":root { --back: #f6f7f9; --card: #ffffff; --text: #1d2129; --soft: #5b6470; --line: #e2e5ea; --best: #1f5fd6;\n"
    "  --old: #a7b0bd; --bad: #c2410c; --roof: #14804a }\n"
    "@media (prefers-color-scheme: dark) { :root { --back: #12151a; --card: #1a1e25; --text: #e7eaee;\n"
    "  --soft: #9aa5b1;\n"
    "  --line: #2b313a; --best: #74a9ff; --old: #5f6b79; --bad: #ff9166; --roof: #4cc38a } }\n"
    "* { box-sizing: border-box }\n"
    "body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.45 system-ui, sans-serif }\n"
    "main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px }\n"
    "h1 { font-size: 26px; margin: 0 } h2 { font-size: 20px; margin: 44px 0 2px }\n"
    "h3 { font-size: 15px; margin: 30px 0 10px }\n"
    "p { margin: 4px 0; color: var(--soft) } small { color: var(--soft); font-size: 12px }\n"
    "b i { display: inline-block; min-width: 20px; padding: 0 5px; margin-right: 4px; border-radius: 10px;\n"
    "  background: var(--line);\n"
    "  color: var(--text); font: 600 12px/20px system-ui, sans-serif; text-align: center }\n"
    ".tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0 0 }\n"
    ".tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 18px;\n"
    "  min-width: 150px }\n"
    ".tile b { display: block; font-size: 22px; font-weight: 650 } .tile.main b { color: var(--best) }\n"
    ".card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px }\n"
    ".legend { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 14px; color: var(--soft);\n"
    "  font-size: 13px; margin: 0 0 8px }\n"
    ".key { width: 16px; height: 9px; border-radius: 2px }\n"
    ".item { display: inline-flex; align-items: center; gap: 6px; white-space: nowrap }\n"
    ".legend svg { width: 18px; height: 12px }\n"
    ".key.before { background: var(--old) } .key.after { background: var(--best) }\n"
    ".row { display: grid; grid-template-columns: minmax(200px, 330px) minmax(120px, 1fr) 150px; gap: 2px 18px;\n"
    "  align-items: center;\n"
    "  padding: 10px 0; border-top: 1px solid var(--line) }\n"
    ".name small, .figures small { display: block; overflow-wrap: anywhere }\n"
    ".point { grid-column: 2 / 4; font-size: 12px;\n"
    "  color: var(--soft) } .none { color: var(--bad); font-size: 13px } .name { grid-row: span 2 }\n"
    "svg.bars { width: 100%; height: 21px } rect.before { fill: var(--old) } rect.after { fill: var(--best) }\n"
    ".roofline { overflow-x: auto } .roofline svg { min-width: 520px }\n"
    "figure { margin: 0 } figure svg { width: 100%; height: auto; display: block }\n"
    ".split { display: grid; grid-template-columns: minmax(0, 1fr) 250px; gap: 20px }\n"
    ".split ol { list-style: none; margin: 6px 0 0; padding: 0; font-size: 13px } .split li { margin: 0 0 8px }\n"
    ".split li small { display: block; padding-left: 26px; overflow-wrap: anywhere }\n"
    ".stack ol { list-style: none; margin: 6px 0 0; padding: 0; font-size: 13px; display: grid; gap: 8px 18px;\n"
    "  grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)) }\n"
    ".stack li small { display: block; overflow-wrap: anywhere }\n"
    "details { margin: 34px 0 0 } summary { cursor: pointer; color: var(--soft) }\n"
    ".curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px }\n"
    ".curve { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 12px 6px;\n"
    "  display: flex; flex-direction: column; justify-content: space-between }\n"
    "figcaption em { font-style: normal; font-weight: 600; color: var(--best); float: right }\n"
    "figcaption small { display: block; margin: 2px 0 6px; overflow-wrap: anywhere }\n"
    "svg text { font: 11px system-ui, sans-serif; fill: var(--soft) } text.end { text-anchor: end }\n"
    "text.middle { text-anchor: middle }\n"
    "text.roof { fill: var(--roof); font-weight: 600 } text.number { fill: var(--text); font-weight: 600;\n"
    "  font-size: 12px }\n"
    ".grid { stroke: var(--line) } .base { stroke: var(--soft); stroke-dasharray: 3 3 }\n"
    ".lead { stroke: var(--soft); stroke-width: 0.7 }\n"
    ".roof { stroke: var(--roof); stroke-width: 2; fill: none } text.roof { stroke: none }\n"
    ".gain { stroke: var(--best); stroke-width: 1.5 } circle.before { fill: var(--card); stroke: var(--old);\n"
    "  stroke-width: 2 }\n"
    "circle.after { fill: var(--best) } circle.ok { fill: var(--best); fill-opacity: 0.45 }\n"
    "circle.stopped { fill: none; stroke: var(--old); stroke-width: 1.3 }\n"
    ".failed { stroke: var(--bad); stroke-width: 1.6; fill: none }\n"
    ".sofar { fill: none; stroke: var(--best); stroke-width: 2 }\n"
    "table { border-collapse: collapse; width: 100%; font-size: 13px } .scroll { overflow-x: auto }\n"
    "th { text-align: left; color: var(--soft); font-weight: 500; white-space: nowrap }\n"
    "td, th { padding: 5px 14px 5px 0;\n"
    "  border-bottom: 1px solid var(--line); vertical-align: top }\n"
    "td.n { text-align: right; white-space: nowrap } td:first-child { white-space: nowrap }\n"
    "th.n { text-align: right }\n"
    "@media (max-width: 760px) { .row { grid-template-columns: 1fr 130px }\n"
    ".name { grid-column: 1 / 3; grid-row: auto }\n"
    "  .point { grid-column: 1 / 3 } .split { grid-template-columns: 1fr } }\n"
    "</style>\n</head>\n<body>\n<main>\n";

/* Of marks in legends; their text follows. */
#define ITEM(mark, words) "<span class=\"item\"><svg viewBox=\"0 0 18 12\">" mark "</svg>" words "</span>"

static const char curve_legend[] =
    "<div class=\"legend\">"
    ITEM("<path class=\"sofar\" d=\"M1 10H9V3H17\"/>", "best so far")
    ITEM("<circle class=\"ok\" cx=\"9\" cy=\"6\" r=\"3\"/>", "measured")
    ITEM("<circle class=\"stopped\" cx=\"9\" cy=\"6\" r=\"3\"/>", "stopped early")
    ITEM("<path class=\"failed\" d=\"M6 3l6 6m0 -6l-6 6\"/>", "failed")
    ITEM("<line class=\"base\" x1=\"0\" x2=\"18\" y1=\"6\" y2=\"6\"/>", "default")
    "&ensp;\xc2\xb7&ensp;trials from left to right, speed over the default upwards</div>\n";

static const char roofline_legend[] =
    "<div class=\"legend\">"
    ITEM("<circle class=\"before\" cx=\"9\" cy=\"6\" r=\"4\"/>", "default")
    ITEM("<circle class=\"after\" cx=\"9\" cy=\"6\" r=\"5\"/>", "best")
    "</div>\n";

/* ---- figures ---- */

static void put_tile(Text *out, const char *kind, const char *value, const char *words)
{
    text_printf(out, "<div class=\"tile%s\"><b>%s</b><small>%s</small></div>\n", kind, value, words);
}

static void put_tiles(Arena *arena, const Machine *machine, Text *out)
{
    int n_trials = 0, n_ok = 0, n_stopped = 0, n_gains = 0;
    double logs = 0;
    for (int i = 0; i < machine->n; i++) {
        const KernelSummary *k = machine->kernels[i];
        n_trials += k->n;
        n_ok += k->count[TRIAL_OK];
        n_stopped += k->count[TRIAL_STOPPED];
        if (k->best.point && k->best.default_point) {
            logs += log(k->best.speedup);
            n_gains++;
        }
    }
    text_printf(out, "<div class=\"tiles\">\n");
    put_tile(out, " main", n_gains ? arena_printf(arena, "%.2f\xc3\x97", exp(logs / n_gains)) : "\xe2\x80\x94",
             "best over default, geometric mean");
    put_tile(out, "", arena_printf(arena, "%d", machine->n), machine->n == 1 ? "kernel" : "kernels");
    put_tile(out, "", arena_printf(arena, "%d", n_trials), "trials");
    put_tile(out, "", arena_printf(arena, "%d", n_stopped), "stopped early");
    put_tile(out, "", arena_printf(arena, "%d", n_trials - n_ok - n_stopped), "failed");
    text_printf(out, "</div>\n");
}

/* ---- tables ---- */

static void put_key_list(Arena *arena, const Machine *machine, Text *out)
{
    text_printf(out, "<ol>\n");
    for (int i = 0; i < machine->n; i++) {
        text_printf(out, "<li><b><i>%d</i></b>", i + 1);
        html_text(out, machine->kernels[i]->key->kernel, 24);
        text_printf(out, "<small>");
        html_text(out, report_shape(arena, machine->kernels[i]->key), 0);
        text_printf(out, "</small></li>\n");
    }
    text_printf(out, "</ol>\n");
}

static void put_seconds_cell(double seconds, Text *out)
{
    text_printf(out, "<td class=\"n\">");
    if (seconds > 0)
        report_put_seconds(out, seconds);
    text_printf(out, "</td>");
}

static void put_table_row(const KernelSummary *k, int number, Text *out)
{
    text_printf(out, "<tr><td><b><i>%d</i></b>", number);
    html_text(out, k->key->kernel, 0);
    text_printf(out, "</td><td class=\"n\">%d</td><td>", k->n);
    summary_put_counts(k, ~0u, out);
    text_printf(out, "</td>");
    put_seconds_cell(k->best.default_seconds, out);
    put_seconds_cell(k->best.seconds, out);
    text_printf(out, "<td>");
    html_text(out, k->best.default_point ? k->best.default_point : "", 0);
    text_printf(out, "</td><td>");
    html_text(out, k->best.point ? k->best.point : "", 0);
    text_printf(out, "</td></tr>\n");
}

static void put_table(const Machine *machine, Text *out)
{
    text_printf(out, "<div class=\"card scroll\"><table><thead><tr><th>kernel</th><th class=\"n\">trials</th><th>how "
                "they ended</th><th class=\"n\">default</th><th class=\"n\">best</th><th>default point</th><th>best "
                "point</th></tr></thead><tbody>\n");
    for (int i = 0; i < machine->n; i++)
        put_table_row(machine->kernels[i], i + 1, out);
    text_printf(out, "</tbody></table></div>\n");
}

/* ---- the page ---- */

/* One trial makes no curve. */
static void put_curves(Arena *arena, const Machine *machine, Text *out)
{
    int n_short = 0;
    text_printf(out, "<h3>Speed over trials</h3>\n%s<div class=\"curves\">\n", curve_legend);
    for (int i = 0; i < machine->n; i++)
        if (machine->kernels[i]->n > 1)
            report_curve(arena, machine->kernels[i], i + 1, out);
        else
            n_short++;
    text_printf(out, "</div>\n");
    if (n_short)
        text_printf(out, "<p><small>Not drawn: %d kernel%s with a single trial.</small></p>\n", n_short, n_short == 1
                    ? "" : "s");
}

static void put_heading(Arena *arena, const RecordKey *key, Text *out)
{
    text_printf(out, "<h2>");
    html_text(out, key->device, 0);
    text_printf(out, "</h2>\n<p>");
    html_text(out, arena_strndup(arena, key->features, strcspn(key->features, ":")), 0);
    text_printf(out, " \xc2\xb7 ");
    html_text(out, key->toolchain, 0);
    text_printf(out, "</p>\n");
}

static void put_pictures(Arena *arena, const Machine *machine, Text *out)
{
    enum { MOST_BESIDE = 8 };      /* entries of the list that fit beside the chart */
    Text roofline = { 0 };
    put_tiles(arena, machine, out);
    text_printf(out, "<h3>Before and after</h3>\n<div class=\"card\">\n");
    report_bars(arena, machine, out);
    text_printf(out, "</div>\n");
    report_roofline(arena, machine, &roofline);
    if (roofline.len) {
        text_printf(out, "<h3>Below the roofline</h3>\n<div class=\"card %s\">\n%s<div>%s",
                    machine->n <= MOST_BESIDE ? "split" : "stack", roofline.data, roofline_legend);
        put_key_list(arena, machine, out);
        text_printf(out, "</div></div>\n");
    }
    text_free(&roofline);
    put_curves(arena, machine, out);
    text_printf(out, "<h3>All figures</h3>\n");
    put_table(machine, out);
}

/* What this mossc's templates are not any more stands apart, folded away. */
static void put_machine(Arena *arena, const Machine *machine, Text *out)
{
    const KernelSummary **kernels = arena_array(arena, const KernelSummary *, 2 * (size_t)machine->n);
    Machine now = { kernels, 0 }, stale = { kernels + machine->n, 0 };
    for (int i = 0; i < machine->n; i++)
        if (machine->kernels[i]->stale)
            kernels[machine->n + stale.n++] = machine->kernels[i];
        else
            kernels[now.n++] = machine->kernels[i];
    text_printf(out, "<section>\n");
    put_heading(arena, machine->kernels[0]->key, out);
    if (now.n)
        put_pictures(arena, &now, out);
    if (stale.n) {
        text_printf(out, "<details><summary>%d kernel%s of other versions of %s template%s</summary>\n", stale.n,
                    stale.n == 1 ? "" : "s", stale.n == 1 ? "its" : "their", stale.n == 1 ? "" : "s");
        put_pictures(arena, &stale, out);
        text_printf(out, "</details>\n");
    }
    text_printf(out, "</section>\n");
}

static int same_machine(const KernelSummary *const *list, int n)
{
    int same = 1;
    while (same < n && strcmp(list[0]->key->device, list[same]->key->device) == 0
           && strcmp(list[0]->key->features, list[same]->key->features) == 0
           && strcmp(list[0]->key->toolchain, list[same]->key->toolchain) == 0)
        same++;
    return same;
}

void report_html(Arena *arena, const Summary *summary, Text *out)
{
    const KernelSummary *const *list = summary_by_machine(arena, summary);
    const char *slash = strrchr(summary->path, '/');
    text_printf(out, "%s<h1>Tuning records</h1>\n<p>", head);
    html_text(out, slash ? slash + 1 : summary->path, 0);
    text_printf(out, ": %d trial%s of %d kernel%s, %d search%s</p>\n", summary->n_trials, summary->n_trials == 1 ? ""
                : "s", summary->n_kernels, summary->n_kernels == 1 ? "" : "s", summary->n_searches,
                summary->n_searches == 1 ? "" : "es");
    for (int i = 0, same; i < summary->n_kernels; i += same) {
        same = same_machine(list + i, summary->n_kernels - i);
        Machine machine = { list + i, same };
        put_machine(arena, &machine, out);
    }
    text_printf(out, "</main>\n</body>\n</html>\n");
}
