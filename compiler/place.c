/* Placing buffers: largest first, each at the lowest offset free during its whole life. */
#include "place.h"

#include <stdlib.h>

static int by_len(const void *a, const void *b)
{
    const PlacedItem *x = a, *y = b;
    if (x->len != y->len)
        return x->len < y->len ? 1 : -1;
    return x->first != y->first ? x->first - y->first : x->last - y->last;
}

static int overlap(const PlacedItem *a, const PlacedItem *b) { return a->first <= b->last && b->first <= a->last; }

/* Lowest offset at which item `i` meets none of the items before it. */
static int64_t lowest_offset(const PlacedItem *items, int i)
{
    int64_t offset = 0;
    for (int moved = 1; moved;) {
        moved = 0;
        for (int j = 0; j < i; j++) {
            int64_t begin = *items[j].offset, end = begin + items[j].len;
            if (overlap(&items[i], &items[j]) && offset < end && begin < offset + items[i].len) {
                offset = end;
                moved = 1;
            }
        }
    }
    return offset;
}

int64_t place_items(PlacedItem *items, int n)
{
    int64_t len = 0;
    qsort(items, (size_t)n, sizeof *items, by_len);
    for (int i = 0; i < n; i++) {
        *items[i].offset = lowest_offset(items, i);
        if (*items[i].offset + items[i].len > len)
            len = *items[i].offset + items[i].len;
    }
    return len;
}

int64_t attention_scratch_len(const Tiling *t, const Step *step, int64_t heads_per_kv, int64_t head_dim)
{
    int64_t rows = (step->token_block * heads_per_kv + step->tile_rows - 1) / step->tile_rows * step->tile_rows;
    int64_t head_stride = (head_dim + t->panel - 1) / t->panel * t->panel;
    return rows * (head_dim + step->key_block + head_stride + t->panel + 2) + (2 * step->key_block + 1) * head_stride;
}
