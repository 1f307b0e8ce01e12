/* Checks of what products are made of: dot products of bytes, and tiles of every height.
 *
 * Part of check.c, which has the random numbers and includes this once.
 */

/* vdot4 and vdot8 on random bytes and all pairs of extremes; the weights as stored: q8, then nibbles. */
static void check_dot(void)
{
    case_name = "vdot4";
    case_row = 0;
    seed = 1;
    for (int rep = 0; rep < 4000; rep++) {
        int8_t x[4], minus[4], weights[4 * LANES];
        int32_t start[LANES], got[LANES], want[LANES];
        const int nibbles = rep & 1;
        for (int i = 0; i < 4; i++)
            x[i] = (int8_t)(rep < 64 ? (rep >> (i + 2) & 1 ? 127 : -127) : random_below(255) - 127);
        for (int i = 0; i < LANES; i++)
            start[i] = want[i] = (int32_t)random_bits() >> 4;
        for (int i = 0; i < 4 * LANES; i++) {
            const int extreme = nibbles ? (i >> i % 4 & 4 ? 15 : 0) : i >> (2 + i % 4) & 1 ? 127 : -127;
            const int q = rep < 64 ? extreme : nibbles ? random_below(16) : random_below(255) - 127;
            const int stored = nibbles ? q : q + DOT_OFFSET;
            weights[i] = (int8_t)stored;
            want[i / 4] += stored * x[i % 4];
        }
        vistore(got, vdot4(viload(start), viload(weights), vbroadcast4(x)));
        int wrong = memcmp(got, want, sizeof got) != 0;
        if (nibbles) {                     /* as the low ones; the high ones are what is left to 15 */
            for (int i = 0; i < 4 * LANES; i++) {
                want[i / 4] += (15 - weights[i]) * -x[i % 4];
                weights[i] = (int8_t)(weights[i] | (15 - weights[i]) << 4);
            }
            for (int i = 0; i < 4; i++)
                minus[i] = (int8_t)-x[i];
            vistore(got, vdot8(viload(start), viload(weights), vbroadcast4(x), vbroadcast4(minus)));
            wrong |= memcmp(got, want, sizeof got) != 0;
        }
        if (wrong) {
            fail("wrong sum");
            return;
        }
    }
}

/* Tiles of every height, also of those that no target takes by itself. */
static void check_tiles(void)
{
    enum { MOST_GROUPS = 20, MOST_LINES = 2 };
    static int8_t x[TILE_MOST_ROWS][MOST_GROUPS * DOT_GROUP], b[MOST_GROUPS * PANEL * DOT_GROUP];
    static int8_t a[TILE_MOST_ROWS * MOST_LINES * TILE_LINE * DOT_GROUP];
    int32_t start[TILE_MOST_ROWS], got[TILE_MOST_ROWS * PANEL];
    case_name = "dot_tile";
    seed = 2;
    for (case_row = 1; case_row <= TILE_MOST_ROWS; case_row++)
        for (int rep = 0; rep < 4 * MOST_GROUPS; rep++) {
            const int rows = case_row, nibbles = rep % 2, lines = rep / 2 % 2, n = 1 + rep / 4;
            const int n_groups = nibbles ? (n + 1) / 2 * 2 : n;
            const int8_t *from[TILE_MOST_ROWS];
            for (int r = 0; r < rows; r++) {
                from[r] = x[r];
                start[r] = (int32_t)random_bits() >> 4;
                for (int k = 0; k < n_groups * DOT_GROUP; k++)
                    x[r][k] = (int8_t)(r % 3 == 1 ? 127 : random_below(255) - 127);
            }
            for (int i = 0; i < n_groups * PANEL * DOT_GROUP; i++)
                b[i] = (int8_t)(nibbles ? random_below(16)
                                        : (i / DOT_GROUP % 3 ? random_below(255) - 127 : -127) + DOT_OFFSET);
            dot_tile_pack(a, from, rows, lines, n_groups);
            dot_tile(rows, nibbles, lines, got, a, b, start, n_groups, b, 0, 0);
            for (int r = 0; r < rows; r++)
                for (int j = 0; j < PANEL; j++) {
                    int32_t want = start[r];
                    for (int k = 0; k < n_groups * DOT_GROUP; k++) {
                        const int8_t w = b[(k / DOT_GROUP * PANEL + j) * DOT_GROUP + k % DOT_GROUP];
                        want += x[r][k] * (nibbles || !DOT_OFFSET ? w : (uint8_t)w);
                    }
                    if (got[r * PANEL + j] != want) {
                        fail("wrong sum");
                        return;
                    }
                }
        }
}
