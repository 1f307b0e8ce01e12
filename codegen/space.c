/* Space: the rows of templates/space.def, and the rules they name. */
#include "space.h"

#include <stdlib.h>
#include <string.h>

enum { L1_LEN = 64 << 10 };

static const SpaceParam params[] = {
#define CHOICE(kernel, name, phase, ...) \
    { #kernel, #name, SPACE_##phase, (int)(sizeof((int[]){ __VA_ARGS__ }) / sizeof(int)), { __VA_ARGS__ } },
#define FEASIBLE(kernel, rule)
#include "templates/space.def"
#undef CHOICE
#undef FEASIBLE
};
enum { N_PARAMS = sizeof params / sizeof *params };

/* ---- rules ---- */

typedef struct { const SearchSpace *space; const SpaceShape *shape; const SpacePoint *point; } Asked;

static int64_t value(const Asked *a, const char *name) { return a->point->value[space_param(a->space, name)]; }

static int vector_registers(TargetId target)
{
    const Target *t = target_info(target);
    return t->family == FAMILY_X86 && t->lanes < 16 ? 16 : 32;
}

static int64_t panel(const Asked *a) { return 2 * target_info(a->shape->target)->lanes; }

/* Two accumulators a row, two vectors of weights and one broadcast value stay in registers; the smaller tiles are
 * another height, and divide the larger. */
static bool tiles_fit(const Asked *a)
{
    int64_t tile = value(a, "tile_rows"), tail = value(a, "tail_rows");
    return tail < tile && tile % tail == 0 && 2 * tile + 3 <= vector_registers(a->shape->target);
}

/* What a thread packs stays in its second-level cache, and a block is no longer than a chunk. */
static bool pack_fits(const Asked *a)
{
    int64_t rows = value(a, "block_rows"), tile = value(a, "tile_rows");
    return rows >= 2 * tile && rows <= a->shape->chunk
        && (rows + panel(a)) * a->shape->row_len <= (a->shape->l2_len ? a->shape->l2_len : 1 << 20);
}

/* 64-bit ARM takes packed rows by lanes of vectors, which lines are not. */
static bool pack_known(const Asked *a)
{
    return !value(a, "pack_lines") || target_info(a->shape->target)->family == FAMILY_X86;
}

/* Less than all of k, and then little enough for the first cache. */
static bool k_in_blocks(const Asked *a)
{
    int64_t block = value(a, "k_block");
    if (block == 0)
        return true;
    return block < a->shape->n_in && 4 * block * panel(a) <= L1_LEN
        && target_info(a->shape->target)->family == FAMILY_X86;
}

/* Only what is narrower than float32, and multiplied as float32, is widened. */
static bool widens_narrow(const Asked *a) { return !value(a, "widen") || a->shape->widened; }

/* A sum a column stays in registers beside a row of weights; no more panels than there are. */
static bool streams_fit(const Asked *a)
{
    int64_t streams = value(a, "streams"), vectors = target_info(a->shape->target)->family == FAMILY_X86 ? 2 : 4;
    return streams * vectors + vectors + 2 <= vector_registers(a->shape->target)
        && (streams == 1 || streams * panel(a) <= a->shape->n_out);
}

/* What is fetched ahead is at most half a panel away. */
static bool prefetch_in_panel(const Asked *a)
{
    int64_t rows = value(a, "prefetch_rows");
    return rows <= 8 || rows <= a->shape->n_in / 2;
}

/* Keys come in whole panels, rows in whole tiles without much waste, and an item's scratch fits the cache. */
static bool attention_fits(const Asked *a)
{
    int64_t tile = value(a, "tile_rows"), keys = value(a, "key_block");
    int64_t rows = value(a, "token_block") * a->shape->group;
    int64_t whole = (rows + tile - 1) / tile * tile, width = a->shape->head_dim + panel(a);
    int64_t len = 4 * (whole * (2 * width + keys) + 2 * keys * width);
    return keys % panel(a) == 0 && 2 * tile + 3 <= vector_registers(a->shape->target) && 8 * (whole - rows) <= rows
        && len <= (a->shape->l2_len ? a->shape->l2_len : 1 << 20);
}

static const struct { const char *kernel; bool (*holds)(const Asked *asked); } rules[] = {
#define CHOICE(...)
#define FEASIBLE(kernel, rule) { #kernel, rule },
#include "templates/space.def"
#undef CHOICE
#undef FEASIBLE
};

bool space_feasible(const SearchSpace *space, const SpaceShape *shape, const SpacePoint *point)
{
    if (space->feasible)
        return space->feasible(space, shape, point);
    const Asked asked = { space, shape, point };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(rules[i].kernel, space->kernel) == 0 && !rules[i].holds(&asked))
            return false;
    return true;
}

/* ---- points ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const SpaceParam *const *)a)->name, (*(const SpaceParam *const *)b)->name);
}

bool space_find_in(const SpaceParam *from, int n, const char *kernel, SearchSpace *space)
{
    *space = (SearchSpace){ 0 };
    for (int i = 0; i < n; i++) {
        if (strcmp(from[i].kernel, kernel) != 0)
            continue;
        if (space->n == SPACE_MAX_PARAMS)
            BUG("more than %d choices of %s", SPACE_MAX_PARAMS, kernel);
        space->kernel = from[i].kernel;
        space->phase = from[i].phase;
        space->param[space->n++] = &from[i];
    }
    qsort(space->param, (size_t)space->n, sizeof *space->param, by_name);
    return space->n > 0;
}

bool space_find(const char *kernel, SearchSpace *space) { return space_find_in(params, N_PARAMS, kernel, space); }

int space_param(const SearchSpace *space, const char *name)
{
    for (int i = 0; i < space->n; i++)
        if (strcmp(space->param[i]->name, name) == 0)
            return i;
    return -1;
}

int space_points(Arena *arena, const SearchSpace *space, const SpaceShape *shape, SpacePoint **points)
{
    size_t total = 1;
    int n = 0;
    for (int i = 0; i < space->n; i++)
        total *= (size_t)space->param[i]->n;
    *points = arena_array(arena, SpacePoint, total);
    for (size_t code = 0; code < total; code++) {
        SpacePoint point = { 0 };
        size_t rest = code;
        for (int i = space->n - 1; i >= 0; i--) {
            point.value[i] = space->param[i]->values[rest % (size_t)space->param[i]->n];
            rest /= (size_t)space->param[i]->n;
        }
        if (space_feasible(space, shape, &point))
            (*points)[n++] = point;
    }
    return n;
}

void space_print(const SearchSpace *space, const SpacePoint *point, Text *out)
{
    for (int i = 0; i < space->n; i++)
        text_printf(out, "%s%s=%d", i ? " " : "", space->param[i]->name, point->value[i]);
}

bool space_read(const SearchSpace *space, const char *text, SpacePoint *point)
{
    const char *at = text;
    *point = (SpacePoint){ 0 };
    for (int i = 0; i < space->n; i++) {
        size_t len = strlen(space->param[i]->name);
        char *end;
        if (i > 0 && *at++ != ' ')
            return false;
        if (strncmp(at, space->param[i]->name, len) != 0 || at[len] != '=' || at[len + 1] < '0' || at[len + 1] > '9')
            return false;
        long number = strtol(at + len + 1, &end, 10);
        if (number > INT32_MAX)
            return false;
        point->value[i] = (int)number;
        at = end;
    }
    return *at == '\0';
}
