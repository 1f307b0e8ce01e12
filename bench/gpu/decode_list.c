/* Makes a model's decode list from settings; see decode_list.h. */
#include "decode_list.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUTE_LEN = 4224 };           /* shared bytes of a router's choice */

Kernel list_kernels[MAX_KERNELS];
Launch list_launches[MAX_LAUNCHES];
Piece list_pieces[4096];
int list_n_kernels, list_n_launches, list_n_pieces;
Model list_model;
uint64_t list_base, list_used;
struct ListRows list_rows;

/* ---- settings ---- */

static struct { const char *key; int value; } settings[] = {
    { "sm", 90 }, { "model", 0 }, { "dtype", 2 }, { "dependent", 1 }, { "top_k", 2 }, { "kinds", 1 },
    { "position", 5000 },
    { "in.tiles", 2 }, { "in.slices", 4 }, { "in.group", 4 }, { "in.ring", 3 }, { "in.warps", 16 }, { "in.blocks", 1 },
    { "x.slices", 8 }, { "x.group", 8 }, { "x.blocks", 2 },
    { "scan.tiles", 2 }, { "scan.slices", 8 },
    { "out.slices", 16 }, { "out.group", 4 }, { "out.ring", 2 }, { "out.blocks", 1 },
    { "down.group", 6 }, { "down.ring", 2 }, { "down.blocks", 1 },
    { "o.group", 2 }, { "o.ring", 1 },
    { "qkv.slices", 8 }, { "qkv.group", 4 }, { "qkv.ring", 1 }, { "splits", 8 },
    { "gated.tiles", 6 }, { "gated.slices", 8 }, { "gated.group", 4 }, { "gated.ring", 2 }, { "gated.y", 1 },
    { "gated.warps", 16 }, { "gated.blocks", 1 },
    { "chain", 0 }, { "coop", 0 }, { "chain.group", 4 }, { "chain.ring", 3 }, { "chain.out_group", 4 },
    { "chain.out_ring", 2 }, { "chain.blocks", 0 }, { "chain.most", 2 },
    { "head.tiles", 48 }, { "head.slices", 1 }, { "head.group", 4 }, { "head.ring", 3 }, { "head.warps", 16 },
};

/* The setting whose name is the first `len` bytes of `key`. */
static int *find_setting(const char *key, size_t len)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (strlen(settings[i].key) == len && memcmp(settings[i].key, key, len) == 0)
            return &settings[i].value;
    fprintf(stderr, "decode_bench: no setting %.*s\n", (int)len, key);
    exit(2);
}

int list_get(const char *key) { return *find_setting(key, strlen(key)); }

void list_set(const char *text)
{
    const char *equals = strchr(text, '=');
    if (!equals) {
        fprintf(stderr, "decode_bench: %s is not KEY=VALUE\n", text);
        exit(2);
    }
    *find_setting(text, (size_t)(equals - text)) = atoi(equals + 1);
}

void list_reset(void)
{
    enum { N = sizeof settings / sizeof *settings };
    static int usual[N];
    static bool known;
    for (int i = 0; i < N && !known; i++)
        usual[i] = settings[i].value;
    known = true;
    for (int i = 0; i < N; i++)
        settings[i].value = usual[i];
}

/* ---- memory ---- */

static uint64_t piece(PieceKind kind, uint64_t len)
{
    const uint64_t at = list_used;
    list_used = (list_used + len + 255) / 256 * 256;
    list_pieces[list_n_pieces++] = (Piece){ at, len, kind };
    return list_base + at;
}

static uint64_t floats(PieceKind kind, uint64_t n) { return piece(kind, 4 * n); }
static uint64_t zeros(uint64_t n) { return floats(KIND_ZERO, n); }

static int up(int n, int m) { return (n + m - 1) / m; }
static int max(int a, int b) { return a > b ? a : b; }
static int dtype(void) { return list_get("dtype"); }
static bool is_q8(void) { return dtype() == 3; }

static uint64_t k_of(int n_in) { return (uint64_t)(n_in + 63) / 64 * 64; }
static uint64_t matrix_len(int experts, int n_out, int n_in)
{
    return (uint64_t)experts * (uint64_t)n_out * k_of(n_in) * (is_q8() ? 1 : 2);
}
static uint64_t matrix(int experts, int n_out, int n_in)
{
    return piece(KIND_WEIGHTS, matrix_len(experts, n_out, n_in));
}
static uint64_t scale(int experts, int n_out)
{
    return is_q8() ? floats(KIND_SCALE, (uint64_t)experts * (uint64_t)n_out) : 0;
}

/* ---- kernels and launches ---- */

static int add_kernel(const char *kind, int threads, int blocks, const char *text)
{
    for (int i = 0; i < list_n_kernels; i++)
        if (strcmp(list_kernels[i].text, text) == 0 && list_kernels[i].threads == threads
            && list_kernels[i].blocks == blocks)
            return i;
    Kernel *kernel = &list_kernels[list_n_kernels];
    uint64_t hash = 1469598103934665603u;
    char whole[440];
    snprintf(whole, sizeof whole, "%d %d %d %s", list_get("sm"), threads, blocks, text);
    for (const char *p = whole; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 1099511628211u;
    snprintf(kernel->file, sizeof kernel->file, "%016llx", (unsigned long long)hash);
    snprintf(kernel->text, sizeof kernel->text, "%s", text);
    kernel->kind = kind, kernel->threads = threads, kernel->blocks = blocks;
    return list_n_kernels++;
}

static Launch *add_launch(const char *kind, int grid_x, int threads, int blocks, int shared_len, const char *text)
{
    Launch *launch = &list_launches[list_n_launches++];
    *launch = (Launch){ .kernel = add_kernel(kind, threads, blocks, text), .grid_x = grid_x, .grid_y = 1,
                        .threads = threads, .shared_len = shared_len };
    return launch;
}

static void add_args(Launch *launch, const uint64_t *values, size_t n)
{
    memcpy(launch->args + launch->n_args, values, n * sizeof *values);
    launch->n_args += (int)n;
}
/* Values without effects: tensors have their place before. */
#define ARGS(launch, ...) \
    add_args(launch, (const uint64_t[]){ __VA_ARGS__ }, sizeof (const uint64_t[]){ __VA_ARGS__ } / sizeof(uint64_t))

/* A template with its parameters, as gpu_render takes them; good until the next. */
static __attribute__((format(printf, 1, 2))) const char *describe(const char *format, ...)
{
    static char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return text;
}

/* ---- layers ---- */

/* What kernels leave for the next: float rows and activations. next[now] are the parts of the next router's logits. */
static uint64_t x, next[2], gates, xh, xc, z, ssm_parts, out_parts, xp, y, q, sums, peaks, h, best, best_at;
static uint64_t chain_words, chain_turns;
static int now;

/* Tensors of the layer after: its norm and its first router. */
typedef struct { uint64_t norm, router; int experts; } Next;

static uint64_t router(int experts, int n_in)
{
    return experts > 1 ? floats(KIND_ROUTER, (uint64_t)experts * (uint64_t)n_in) : 0;
}

static char layer_kind(int layer) { return list_model.layers[layer % (int)strlen(list_model.layers)]; }

static Next next_of(int layer)
{
    const char kind = layer < list_model.n_layers ? layer_kind(layer) : 0;
    const int experts = kind == 'm' || kind == 'f' ? list_model.experts : 1;
    const uint64_t norm = floats(KIND_ONE, (uint64_t)list_model.d);
    return (Next){ norm, router(experts, list_model.d), experts };
}

/* Shared bytes: rows of activations, a ring of weights in each warp, sums of warps that share columns. */
static int rows_shared(int n_in) { return MAX_ROWS * ((int)k_of(n_in) + 8) * 2; }
static int ring_shared(int warps, int ring, int group) { return warps * ring * group * 512; }
static int next_shared(int experts) { return 8 * ((experts > 1 ? experts : 0) + 1) * 4; }

static int chosen(void) { return list_model.experts > 1 ? list_get("top_k") : 1; }

/* A mamba layer's, in the order in which they lie. */
typedef struct {
    uint64_t ssm_router, out_router, in, in_scale, conv, conv_bias, x, x_scale, dt, dt_scale, dt_bias, a, d;
    uint64_t out, out_scale;
} Mamba;

static Mamba mamba_tensors(void)
{
    const Model *m = &list_model;
    const int e = m->experts, each = m->r + 2 * m->n;
    Mamba t;
    t.ssm_router = router(e, m->c), t.out_router = router(e, m->c);
    t.in = matrix(e, 2 * m->c, m->d), t.in_scale = scale(e, 2 * m->c);
    t.conv = floats(KIND_CONV, (uint64_t)(m->c * m->conv)), t.conv_bias = floats(KIND_CONV, (uint64_t)m->c);
    t.x = matrix(e, each, m->c), t.x_scale = scale(e, each);
    t.dt = matrix(1, m->c, e * m->r), t.dt_scale = scale(1, m->c);
    t.dt_bias = floats(KIND_DT_BIAS, (uint64_t)(e * m->c)), t.a = floats(KIND_A, (uint64_t)(m->c * m->n));
    t.d = floats(KIND_ONE, (uint64_t)m->c);
    t.out = matrix(e, m->d, m->c), t.out_scale = scale(e, m->d);
    return t;
}

static uint64_t conv_len(void) { return (uint64_t)((list_model.conv - 1) * list_model.c * 4); }
static uint64_t scan_len(void) { return (uint64_t)(list_model.c * list_model.n * 4); }
static uint64_t ring_len(void) { return (uint64_t)(list_model.window * list_model.kv * list_model.head_dim * 2); }

/* How a mamba layer is cut: into blocks of in_proj and of the scan. */
static int in_columns(void) { return 8 * list_get("in.tiles"); }
static int scan_columns(void) { return 8 * list_get("scan.tiles"); }

static void list_in(const Mamba *t, Next own, uint64_t state)
{
    const Model *m = &list_model;
    const int e = m->experts, columns = in_columns(), tiles = list_get("in.tiles"), slices = list_get("in.slices");
    const int warps = list_get("in.warps"), group = list_get("in.group"), ring = list_get("in.ring");
    const int items = columns * (m->conv + 1) + (e > 1 ? e * columns : 0) + MAX_ROWS * columns * (m->conv - 1);
    const int shared_len = ROUTE_LEN + rows_shared(m->d) + ring_shared(warps, ring, group) + 2 * tiles * slices * 512
                         + MAX_ROWS * columns * 4 + (is_q8() ? e * 2 * columns * 4 : 0) + items * 4;
    const char *text = describe(
        "decode_in n_in=%d n_channels=%d d_conv=%d n_experts=%d renormalize=0 weight_dtype=%d act=2 n_parts=%d "
        "tiles=%d n_slices=%d group=%d ring=%d eps=1e-5",
        m->d, m->c, m->conv, e, dtype(), up(m->d, 8), tiles, slices, group, ring);
    Launch *l = add_launch("in", up(m->c, columns), 32 * warps, list_get("in.blocks"), shared_len, text);
    ARGS(l, xh, xc, z, ssm_parts, x, next[now], own.norm, t->in, t->in_scale, t->conv, t->conv_bias, t->ssm_router,
         state, list_rows.slots, list_rows.state_stride, ROWS_ARG, (uint64_t)list_get("top_k"));
    l->n_bytes = (int64_t)matrix_len(chosen(), 2 * m->c, m->d);
}

static void list_x(const Mamba *t)
{
    const Model *m = &list_model;
    const int e = m->experts, n_out = m->r + 2 * m->n, slices = list_get("x.slices"), group = list_get("x.group");
    const char *text = describe(
        "decode_x n_in=%d n_out=%d n_experts=%d renormalize=0 weight_dtype=%d act=2 n_parts=%d n_slices=%d group=%d "
        "ring=1",
        m->c, n_out, e, dtype(), up(m->c, in_columns()), slices, group);
    Launch *l = add_launch("x", e * up(n_out, 8) + (e > 1), 32 * slices, list_get("x.blocks"),
                           ROUTE_LEN + ring_shared(slices, 1, group) + slices * 512, text);
    ARGS(l, xp, gates, xh, ssm_parts, t->x, t->x_scale, ROWS_ARG, (uint64_t)list_get("top_k"));
    l->n_bytes = (int64_t)matrix_len(e, n_out, m->c);
}

static void list_scan(const Mamba *t, uint64_t state)
{
    const Model *m = &list_model;
    const int e = m->experts, columns = scan_columns();
    const int tiles = list_get("scan.tiles"), slices = list_get("scan.slices");
    const int shared_len = rows_shared(e * m->r) + MAX_ROWS * 2 * m->n * 4 + tiles * slices * 512
                         + MAX_ROWS * columns * 4 + MAX_ROWS * e * 4 + 2 * e * columns * 4;
    const char *text = describe(
        "decode_scan n_channels=%d d_state=%d dt_rank=%d n_experts=%d zoh=0 weight_dtype=%d act=2 tiles=%d "
        "n_slices=%d",
        m->c, m->n, m->r, e, dtype(), tiles, slices);
    Launch *l = add_launch("scan", up(m->c, columns), 32 * tiles * slices, 2, shared_len, text);
    ARGS(l, y, out_parts, xp, gates, xc, z, t->dt, t->dt_scale, t->dt_bias, t->a, t->d, t->out_router,
         state + conv_len(), list_rows.slots, list_rows.state_stride, ROWS_ARG);
    l->n_bytes = (int64_t)(matrix_len(1, m->c, e * m->r) + 3 * scan_len());
}

/* What decode_out's three uses differ in; own_shared: bytes of its own. */
typedef struct {
    const char *kind;
    int n_in, experts, blocks, n_parts, normed, by_pair, splits, head_dim, group, ring, own_shared;
    uint64_t in, in_peaks, parts, weights, scales;
} Out;

static void list_out(const Out *out, Next after)
{
    const Model *m = &list_model;
    const int slices = list_get("out.slices");
    const int shared_len = ROUTE_LEN + ring_shared(slices, out->ring, out->group) + slices * 512
                         + next_shared(after.experts) + out->own_shared;
    const char *text = describe(
        "decode_out n_in=%d n_out=%d n_experts=%d renormalize=0 weight_dtype=%d act=2 n_parts=%d normed=%d known=%d "
        "by_pair=%d splits=%d head_dim=%d next_experts=%d n_slices=%d group=%d ring=%d eps=1e-5",
        out->n_in, m->d, out->experts, dtype(), out->n_parts, out->normed, out->normed, out->by_pair, out->splits,
        out->head_dim, after.experts, slices, out->group, out->ring);
    Launch *l = add_launch(out->kind, up(m->d, 8), 32 * slices, out->blocks, shared_len, text);
    now ^= 1;
    ARGS(l, x, next[now], out->in, out->in_peaks, out->parts, out->weights, out->scales, after.norm, after.router,
         ROWS_ARG, (uint64_t)list_get("top_k"));
    l->n_bytes = (int64_t)matrix_len(out->experts > 1 ? list_get("top_k") : 1, m->d, out->n_in);
}

static void list_mamba(Next own, Next after, uint64_t state)
{
    const Model *m = &list_model;
    const int e = m->experts;
    const Mamba t = mamba_tensors();
    list_in(&t, own, state);
    list_x(&t);
    list_scan(&t, state);
    list_out(&(Out){ .kind = "out", .n_in = m->c, .experts = e, .blocks = list_get("out.blocks"),
                     .n_parts = up(m->c, scan_columns()), .head_dim = 64, .group = list_get("out.group"),
                     .ring = list_get("out.ring"), .own_shared = is_q8() ? e * 32 : 0, .in = y, .parts = out_parts,
                     .weights = t.out, .scales = t.out_scale }, after);
}

/* ---- a run of mamba layers in one launch ---- */

/* Columns of x_proj that are a step of its own. */
static int chain_x_group(void) { return 2 * up(list_model.c / (is_q8() ? 64 : 32) / 2, 16); }

/* chain.blocks 0: one for every panel of 16 channels. */
static int chain_blocks(void) { return list_get("chain.blocks") > 0 ? list_get("chain.blocks") : list_model.c / 16; }

/* Columns of x_proj, in eights, that a block has at most. */
static int chain_x_most(void)
{
    const Model *m = &list_model;
    return up(up(m->experts * (m->r + 2 * m->n), 8), chain_blocks());
}

static int chain_shared(int last_experts)
{
    const Model *m = &list_model;
    const int e = m->experts, routed = e > 1 ? e : 0, each = m->r + 2 * m->n, most = list_get("chain.most");
    const int steps = max(list_get("chain.group") * list_get("chain.ring"),
                          list_get("chain.out_group") * list_get("chain.out_ring"));
    const int panel = 16 * (2 * m->conv + 2 * routed + e + 1 + is_q8())
                    + 8 * max(routed, last_experts > 1 ? last_experts : 0) + (is_q8() ? 40 * e : 0);
    const int floats = (int)k_of(m->d) + most * (32 * m->n + 56) + e * ((each + 1) / 2 * 2)
                     + 2 * (most * panel + (is_q8() ? 8 * chain_x_most() : 0));
    return ROUTE_LEN + 2 * ((int)k_of(m->d) + 8) + 2 * ((int)k_of(m->c) + 8) + 16 * steps * 512
         + 16 * chain_x_most() * chain_x_group() * 512 + most * 16 * (int)k_of(e * m->r) * (is_q8() ? 1 : 2)
         + (most + chain_x_most()) * 16 * 32 + 4 * floats;
}

static uint64_t aligned(uint64_t len) { return (len + 255) / 256 * 256; }

/* The tensors of layers [first, first + n), *stride bytes apart; those of the first layer are *t. Returns the norm and
 * router after them. The first norm lies far before its layer: as far are the others. */
static Next chain_tensors(Next own, int first, int n, Mamba *t, uint64_t *stride)
{
    const Model *m = &list_model;
    const uint64_t begin = list_used, norm = own.norm - list_base;
    const uint64_t norm_len = aligned((uint64_t)m->d * 4);
    const uint64_t router_end = norm_len + aligned((uint64_t)((m->experts > 1 ? m->experts : 0) * m->d * 4));
    const int n_before = list_n_pieces;
    list_used += router_end, mamba_tensors();                   /* how long a layer is */
    *stride = list_used - begin > begin - norm ? list_used - begin : begin - norm;
    list_n_pieces = n_before;
    for (int i = 0; i < n; i++) {
        list_used = norm + (uint64_t)(i + 1) * *stride;
        own = next_of(first + i + 1);
        list_used = norm + (uint64_t)(i + 1) * *stride + router_end;    /* also where no router is */
        const Mamba layer = mamba_tensors();
        *t = i == 0 ? layer : *t;
    }
    return own;
}

static Next list_chain(Next own, int first, int n, uint64_t state)
{
    const Model *m = &list_model;
    const int e = m->experts, each = m->r + 2 * m->n;
    const uint64_t parts = next[now];
    uint64_t stride;
    Mamba t = { 0 };
    const Next after = chain_tensors(own, first, n, &t, &stride);
    const char *text = describe(
        "decode_chain d_model=%d n_channels=%d d_conv=%d d_state=%d dt_rank=%d n_experts=%d renormalize=0 zoh=0 "
        "weight_dtype=%d dt_dtype=%d act=2 next_experts=%d group=%d ring=%d out_group=%d out_ring=%d x_group=%d "
        "most=%d x_most=%d eps=1e-5",
        m->d, m->c, m->conv, m->n, m->r, e, dtype(), dtype(), after.experts, list_get("chain.group"),
        list_get("chain.ring"), list_get("chain.out_group"), list_get("chain.out_ring"), chain_x_group(),
        list_get("chain.most"), chain_x_most());
    Launch *l = add_launch("chain", chain_blocks(), 512, 1, chain_shared(after.experts), text);
    now ^= 1;
    l->resident = 1;
    ARGS(l, x, next[now], parts, chain_words, chain_turns, own.norm, own.router, t.in, t.conv, t.conv_bias,
         t.ssm_router, t.x, t.dt, t.dt_bias, t.a, t.d, t.out_router, t.out, after.norm, after.router, state,
         state + conv_len(), list_rows.slots, list_rows.state_stride, stride / 16, (conv_len() + scan_len()) / 16,
         (uint64_t)n, (uint64_t)list_get("top_k"));
    l->n_bytes = n * (int64_t)(matrix_len(chosen(), 2 * m->c, m->d) + matrix_len(e, each, m->c)
                               + matrix_len(1, m->c, e * m->r) + matrix_len(chosen(), m->d, m->c) + 3 * scan_len());
    return after;
}

/* ---- the other layers ---- */

static void list_qkv(Next own, uint64_t state)
{
    const Model *m = &list_model;
    const int hd = m->head_dim, n_q = m->heads * hd, n_kv = m->kv * hd;
    const int slices = list_get("qkv.slices"), group = list_get("qkv.group"), ring = list_get("qkv.ring");
    const uint64_t w_q = matrix(1, n_q, m->d), w_k = matrix(1, n_kv, m->d), w_v = matrix(1, n_kv, m->d);
    const uint64_t s_q = scale(1, n_q), s_k = scale(1, n_kv), s_v = scale(1, n_kv);
    const char *text = describe(
        "decode_qkv n_in=%d n_heads=%d n_kv_heads=%d head_dim=%d rope=1 window=%d weight_dtype=%d act=2 n_parts=%d "
        "n_slices=%d group=%d ring=%d eps=1e-5",
        m->d, m->heads, m->kv, hd, m->window, dtype(), up(m->d, 8), slices, group, ring);
    Launch *l = add_launch("qkv", (m->heads + 2 * m->kv) * up(hd / 2, 4), 32 * slices, 2,
                           ROUTE_LEN + rows_shared(m->d) + ring_shared(slices, ring, group) + slices * 512 + 32, text);
    ARGS(l, q, state, state + ring_len(), x, next[now], own.norm, w_q, w_k, w_v, s_q, s_k, s_v, list_rows.table,
         list_rows.positions, list_rows.slots, list_rows.state_stride, (uint64_t)m->window, ROWS_ARG);
    l->n_bytes = (int64_t)matrix_len(1, n_q + 2 * n_kv, m->d);
}

static void list_attention(Next own, Next after, uint64_t state)
{
    const Model *m = &list_model;
    const int hd = m->head_dim, n_q = m->heads * hd, splits = list_get("splits");
    list_qkv(own, state);
    const char *text = describe(
        "decode_attention n_heads=%d n_kv_heads=%d head_dim=%d window=%d splits=%d act=2",
        m->heads, m->kv, hd, m->window, splits);
    Launch *l = add_launch("attention", m->kv * splits, 512, 1, 16 * 2 * 16 * (hd + 8) * 2, text);
    l->y_rows = 1;
    ARGS(l, sums, peaks, q, state, state + ring_len(), list_rows.positions, list_rows.slots, list_rows.state_stride,
         (uint64_t)m->window, ROWS_ARG);
    l->n_bytes = (int64_t)(2 * ring_len());
    const uint64_t weights = matrix(1, m->d, n_q), scales = scale(1, m->d);
    list_out(&(Out){ .kind = "o", .n_in = n_q, .experts = 1, .blocks = 2, .n_parts = 1, .splits = splits,
                     .head_dim = hd, .group = list_get("o.group"), .ring = list_get("o.ring"),
                     .own_shared = (is_q8() ? 32 : 0) + rows_shared(n_q), .in = sums, .in_peaks = peaks,
                     .weights = weights, .scales = scales }, after);
}

static void list_mlp(Next own, Next after)
{
    const Model *m = &list_model;
    const int e = m->experts, tiles = list_get("gated.tiles"), slices = list_get("gated.slices");
    const int warps = list_get("gated.warps"), group = list_get("gated.group"), ring = list_get("gated.ring");
    const uint64_t weights = matrix(e, 2 * m->f, m->d), scales = scale(e, 2 * m->f), parts = next[now];
    const char *text = describe(
        "decode_gated n_in=%d n_out=%d n_experts=%d weight_dtype=%d act=2 n_parts=%d tiles=%d n_slices=%d group=%d "
        "ring=%d eps=1e-5",
        m->d, m->f, e, dtype(), up(m->d, 8), tiles, slices, group, ring);
    Launch *l = add_launch("gated", up(m->f, 4 * tiles), 32 * warps, list_get("gated.blocks"),
                           ROUTE_LEN + rows_shared(m->d) + ring_shared(warps, ring, group) + tiles * slices * 512
                           + (is_q8() ? e * 8 * tiles * 4 : 0), text);
    l->grid_y = e > 1 ? list_get("gated.y") : 1;
    ARGS(l, h, x, parts, own.norm, weights, scales, ROWS_ARG, (uint64_t)list_get("top_k"));
    l->n_bytes = (int64_t)matrix_len(chosen(), 2 * m->f, m->d);
    const uint64_t down = matrix(e, m->d, m->f), down_scales = scale(e, m->d);
    list_out(&(Out){ .kind = "down", .n_in = m->f, .experts = e, .blocks = list_get("down.blocks"),
                     .n_parts = up(m->d, 8), .normed = 1, .by_pair = 1, .head_dim = 64, .group = list_get("down.group"),
                     .ring = list_get("down.ring"), .own_shared = is_q8() ? e * 32 : 0, .in = h, .parts = parts,
                     .weights = down, .scales = down_scales }, after);
}

static void list_head(Next own)
{
    const Model *m = &list_model;
    const int tiles = list_get("head.tiles"), slices = list_get("head.slices"), warps = list_get("head.warps");
    const int group = list_get("head.group"), ring = list_get("head.ring"), blocks = up(m->vocab, 8 * tiles);
    const uint64_t weights = matrix(1, m->vocab, m->d), scales = scale(1, m->vocab);
    const char *text = describe(
        "decode_head n_in=%d n_out=%d weight_dtype=%d act=2 n_parts=%d tiles=%d n_slices=%d group=%d ring=%d "
        "eps=1e-5",
        m->d, m->vocab, dtype(), up(m->d, 8), tiles, slices, group, ring);
    Launch *l = add_launch("head", blocks, 32 * warps, 1,
                           ROUTE_LEN + rows_shared(m->d) + ring_shared(warps, ring, group) + tiles * slices * 512
                           + (is_q8() ? tiles * 32 : 0), text);
    ARGS(l, list_rows.logits, best, best_at, x, next[now], own.norm, weights, scales, ROWS_ARG);
    l->n_bytes = (int64_t)matrix_len(1, m->vocab, m->d);
    l = add_launch("feed", 16, 32, 0, 0, describe("decode_feed n_parts=%d history=%d", blocks, HISTORY));
    ARGS(l, list_rows.tokens, list_rows.history, list_rows.positions, best, best_at, ROWS_ARG);
}

/* ---- the list ---- */

static const Model models[] = {
    { 1024, 2048, 16, 64, 4, 8, 16, 4, 64, 2048, 3072, 50304, 30, "mmmmaf" },
    { 1024, 2048, 16, 64, 4, 1, 16, 4, 64, 2048, 3072, 50280, 60, "m" },
};

static uint64_t state_len(char kind)
{
    return kind == 'm' ? conv_len() + scan_len() : kind == 'a' ? 2 * ring_len() : 0;
}

/* What kernels leave for each other, and what the benchmark writes and reads. */
static void hand_out_rows(void)
{
    const Model *m = &list_model;
    const uint64_t rows = MAX_ROWS, d = (uint64_t)m->d, c = (uint64_t)m->c, n_q = (uint64_t)(m->heads * m->head_dim);
    x = zeros(rows * d);
    for (int i = 0; i < 2; i++)
        next[i] = zeros(rows * 33 * (uint64_t)up(m->d, 8));
    gates = zeros(rows * 32), xh = piece(KIND_ZERO, rows * c * 2);
    xc = zeros(rows * c), z = zeros(rows * c);
    ssm_parts = zeros(rows * 32 * 512), out_parts = zeros(rows * 32 * 512);
    xp = zeros(rows * 16 * (uint64_t)(m->experts * (m->r + 2 * m->n))), y = piece(KIND_ZERO, rows * c * 2);
    q = piece(KIND_ZERO, rows * n_q * 2), sums = zeros(rows * n_q * 32);
    peaks = zeros(rows * (uint64_t)m->heads * 32 * 2);
    h = piece(KIND_ZERO, rows * (uint64_t)(list_get("top_k") * m->f) * 2);
    list_rows.logits = zeros(rows * (uint64_t)m->vocab), best = zeros(rows * 8192), best_at = zeros(rows * 8192);
    list_rows.tokens = zeros(16), list_rows.positions = piece(KIND_ZERO, 128), list_rows.slots = zeros(16);
    list_rows.table = zeros(rows * (uint64_t)m->head_dim), list_rows.history = zeros(HISTORY * rows);
    chain_words = piece(KIND_ZERO, 1 << 20), chain_turns = piece(KIND_ZERO, 4096);
    list_rows.state_stride = 0;
    for (int i = 0; i < m->n_layers; i++)
        list_rows.state_stride += state_len(layer_kind(i));
    list_rows.states = piece(KIND_RING, rows * list_rows.state_stride);
}

/* Layers [i, …) of one launch or one kind; returns how many. */
static int list_layers(int i, Next *own, uint64_t state)
{
    const char kind = layer_kind(i);
    int n = 1;
    if (kind == 'm' && list_get("chain")) {
        while (i + n < list_model.n_layers && layer_kind(i + n) == 'm')
            n++;
        *own = list_chain(*own, i, n, state);
        return n;
    }
    const Next after = next_of(i + 1);
    if (kind == 'm')
        list_mamba(*own, after, state);
    else if (kind == 'a')
        list_attention(*own, after, state);
    else
        list_mlp(*own, after);
    *own = after;
    return 1;
}

void list_build(void)
{
    const Model *m = &list_model;
    list_model = models[list_get("model")];
    list_used = 0, list_n_pieces = list_n_launches = list_n_kernels = now = 0;
    hand_out_rows();
    Next own = next_of(0);
    const uint64_t weights = matrix(1, m->vocab, m->d), scales = scale(1, m->vocab);
    const char *text = describe(
        "decode_embed d_model=%d weight_dtype=%d act=2 next_experts=%d",
        m->d, dtype(), own.experts);
    Launch *l = add_launch("embed", up(m->d, 8), 512, 0, 9 * 32 * 4 + 1024, text);
    ARGS(l, x, next[now], list_rows.tokens, weights, scales, own.norm, own.router, ROWS_ARG);
    uint64_t state = list_rows.states;
    for (int i = 0, n; i < m->n_layers; i += n) {
        n = list_layers(i, &own, state);
        state += (uint64_t)n * state_len(layer_kind(i));
    }
    list_head(own);
}
