/* Golden tests: running a folder of cases, showing what differs. See golden.h. */
#include "golden.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool slurp(const char *path, Text *out)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    char bytes[4096];
    size_t len;
    text_append(out, "", 0);
    while ((len = fread(bytes, 1, sizeof bytes, file)) > 0)
        text_append(out, bytes, len);
    fclose(file);
    return true;
}

static bool write_file(const char *path, const Text *text)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return false;
    bool good = text->len == 0 || fwrite(text->data, 1, text->len, file) == text->len;
    return fclose(file) == 0 && good;
}

/* ---- difference ---- */

static size_t line_len(const char *at)
{
    size_t len = strcspn(at, "\n");
    return len + (at[len] == '\n');
}

static bool same_line(const char *a, const char *b)
{
    return line_len(a) == line_len(b) && strncmp(a, b, line_len(a)) == 0;
}

static void put_line(char mark, const char *at)
{
    size_t len = line_len(at);
    printf("%c %.*s%s", mark, (int)len, at, len && at[len - 1] == '\n' ? "" : "\n");
}

/* How far `line` is below `at`; -1 if it is not within the next lines. */
static int lines_until(const char *at, const char *line)
{
    for (int n = 0; *at && n < 200; at += line_len(at), n++)
        if (same_line(at, line))
            return n;
    return -1;
}

/* Greedy: at a mismatch take the side whose line turns up again soonest on the other. */
static void print_diff(const char *expected, const char *found)
{
    while (*expected || *found) {
        if (*expected && *found && same_line(expected, found)) {
            expected += line_len(expected);
            found += line_len(found);
            continue;
        }
        int down = *expected ? lines_until(found, expected) : 0, up = *found ? lines_until(expected, found) : -1;
        bool take_found = *found && down >= 0 && (up < 0 || down <= up);
        if (take_found || !*expected) {
            put_line('+', found);
            found += line_len(found);
        } else {
            put_line('-', expected);
            expected += line_len(expected);
        }
    }
}

/* ---- cases ---- */

typedef struct { const char *folder, *suffix; GoldenFn *run; bool update; } Golden;

static bool run_case(const Golden *golden, const char *name)
{
    char path[4096], expected_path[4096];
    snprintf(path, sizeof path, "%s/%s", golden->folder, name);
    snprintf(expected_path, sizeof expected_path, "%s/%.*s.expected", golden->folder,
             (int)(strlen(name) - strlen(golden->suffix)), name);
    Text source = { 0 }, found = { 0 }, expected = { 0 };
    bool good = slurp(path, &source);
    text_append(&found, "", 0);
    if (good)
        golden->run(name, &source, &found);
    if (good && golden->update) {
        good = write_file(expected_path, &found);
    } else if (good && (!slurp(expected_path, &expected) || strcmp(expected.data, found.data) != 0)) {
        printf("FAIL %s (- expected, + found)\n", name);
        print_diff(expected.data ? expected.data : "", found.data);
        good = false;
    }
    text_free(&source);
    text_free(&found);
    text_free(&expected);
    return good;
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t len = strlen(name), suffix_len = strlen(suffix);
    return len > suffix_len && strcmp(name + len - suffix_len, suffix) == 0;
}

int golden_main(int argc, char **argv, const char *program, const char *suffix, GoldenFn *run)
{
    bool update = argc == 3 && strcmp(argv[1], "--update") == 0;
    if (argc != 2 && !update) {
        fprintf(stderr, "usage: %s [--update] FOLDER\n", program);
        return 2;
    }
    Golden golden = { argv[argc - 1], suffix, run, update };
    struct dirent **names;
    int n = scandir(golden.folder, &names, NULL, alphasort), n_cases = 0, n_bad = 0;
    for (int i = 0; i < n; i++) {
        if (has_suffix(names[i]->d_name, suffix)) {
            n_cases++;
            n_bad += !run_case(&golden, names[i]->d_name);
        }
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    if (n_cases == 0) {
        fprintf(stderr, "%s: no cases in %s\n", program, golden.folder);
        return 3;
    }
    printf("%d cases, %d failed\n", n_cases, n_bad);
    return n_bad != 0;
}
