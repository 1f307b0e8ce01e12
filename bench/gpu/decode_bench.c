/* Times one token of a model's decode list on a GPU, kernel by kernel and as a CUDA graph, with random weights.
 *
 *   decode_bench list [KEY=VALUE...]          a line an instance: FILE SM THREADS BLOCKS TEMPLATE PARAM=VALUE...
 *   decode_bench run FOLDER [KEY=VALUE...]    with FOLDER/FILE.ptx of every line (bench/gpu/decode.sh makes them)
 *
 * The model is 8x200M+ (5 x (4 mamba, attention, mlp), 8 experts, top 2, vocabulary 50304) or, with model=1,
 * Mamba-500M (60 dense mamba layers, vocabulary 50280). Output: tokens a second for batch 1, 4 and 16, bytes read,
 * the share of the read bandwidth that the same run measures, a hash of 40 greedy tokens (with and without dependent
 * launch it is the same), and for every kind of kernel the time of a launch in a chain of its own kind.
 */
#include "../../runtime/gpu_driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_ARGS = 36, MAX_LAUNCHES = 512, MAX_KERNELS = 64, MAX_ROWS = 16, ROUTE_LEN = 4224, ROW_LEN_ALIGN = 64 };

/* ---- settings ---- */

typedef struct { const char *key; int value; } Setting;
static Setting settings[] = {
    { "sm", 90 }, { "model", 0 }, { "dtype", 2 }, { "dependent", 1 }, { "top_k", 2 }, { "kinds", 1 }, { "position",
        5000 },
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
    { "chain.out_ring", 2 },
    { "head.tiles", 48 }, { "head.slices", 1 }, { "head.group", 4 }, { "head.ring", 3 }, { "head.warps", 16 },
};

static int get(const char *key)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (strcmp(settings[i].key, key) == 0)
            return settings[i].value;
    fprintf(stderr, "decode_bench: no setting %s\n", key);
    exit(2);
}

static void set(const char *text)
{
    const char *equals = strchr(text, '=');
    for (size_t i = 0; equals && i < sizeof settings / sizeof *settings; i++)
        if (strlen(settings[i].key) == (size_t)(equals - text) && memcmp(settings[i].key, text,
            (size_t)(equals - text)) == 0) {
            settings[i].value = atoi(equals + 1);
            return;
        }
    fprintf(stderr, "decode_bench: cannot take %s\n", text);
    exit(2);
}

/* ---- the list ---- */

typedef struct { char file[24], text[400]; const char *kind; int threads, blocks; moss_cu_function function; } Kernel;
typedef struct {
    int kernel, grid_x, grid_y, y_rows, resident, threads, shared_len, n_args;   /* y_rows: grid_y is the rows' count */
    uint64_t args[MAX_ARGS];
    int64_t n_bytes;             /* of weights read by one row, experts chosen once */
} Launch;

static Kernel kernels[MAX_KERNELS];
static Launch launches[MAX_LAUNCHES];
static int n_kernels, n_launches;
enum { ROWS_ARG = 0x7fff0001 };  /* stands for n_rows until a batch is chosen */

/* ---- the model ---- */

typedef struct { int d, c, n, r, conv, experts, heads, kv, head_dim, window, f, vocab,
    n_layers; const char *layers; } Model;
static const Model models[] = {
    { 1024, 2048, 16, 64, 4, 8, 16, 4, 64, 2048, 3072, 50304, 30, "mmmmaf" },
    { 1024, 2048, 16, 64, 4, 1, 16, 4, 64, 2048, 3072, 50280, 60, "m" },
};
static Model model;

/* Device memory is handed out in order: first addresses are counted from 0, `base` is added when there is a device. */
static uint64_t base, used;
enum { KIND_WEIGHTS, KIND_SCALE, KIND_ROUTER, KIND_ONE, KIND_CONV, KIND_DT_BIAS, KIND_A, KIND_ZERO, KIND_RING };
typedef struct { uint64_t at, len; int kind; } Piece;
static Piece pieces[4096];
static int n_pieces;

static uint64_t piece(int kind, uint64_t len)
{
    const uint64_t at = used;
    used = (used + len + 255) / 256 * 256;
    pieces[n_pieces++] = (Piece){ at, len, kind };
    return base + at;
}
static uint64_t floats(int kind, uint64_t n) { return piece(kind, 4 * n); }
static uint64_t k_of(int n_in) { return (uint64_t)(n_in + 63) / 64 * 64; }
static uint64_t matrix_len(int experts, int n_out,
    int n_in) { return experts * (uint64_t)n_out * k_of(n_in) * (get("dtype") == 3 ? 1 : 2); }
static uint64_t matrix(int experts, int n_out, int n_in) { return piece(KIND_WEIGHTS, matrix_len(experts, n_out,
    n_in)); }
static uint64_t scale(int experts, int n_out) { return get("dtype") == 3 ? floats(KIND_SCALE,
    (uint64_t)experts * n_out) : 0; }

static int add_kernel(const char *kind, int threads, int blocks, const char *text)
{
    for (int i = 0; i < n_kernels; i++)
        if (strcmp(kernels[i].text, text) == 0 && kernels[i].threads == threads && kernels[i].blocks == blocks)
            return i;
    Kernel *kernel = &kernels[n_kernels];
    uint64_t hash = 1469598103934665603u;
    char whole[440];
    snprintf(whole, sizeof whole, "%d %d %d %s", get("sm"), threads, blocks, text);
    for (const char *p = whole; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 1099511628211u;
    snprintf(kernel->file, sizeof kernel->file, "%016llx", (unsigned long long)hash);
    snprintf(kernel->text, sizeof kernel->text, "%s", text);
    kernel->kind = kind, kernel->threads = threads, kernel->blocks = blocks;
    return n_kernels++;
}

static Launch *add_launch(const char *kind, int grid_x, int threads, int blocks, int shared_len, const char *text)
{
    Launch *launch = &launches[n_launches++];
    *launch = (Launch){ .kernel = add_kernel(kind, threads, blocks, text), .grid_x = grid_x,
        .grid_y = 1,
        .threads = threads, .shared_len = shared_len };
    return launch;
}
static void arg(Launch *launch, uint64_t value) { launch->args[launch->n_args++] = value; }

#define TEXT(...) (snprintf(text, sizeof text, __VA_ARGS__), text)
static char text[400];

static uint64_t x, next[2], gates, xh, xc, z, ssm_parts, out_parts, xp, y, q, sums, peaks, h, logits, best, best_at;
static uint64_t tokens, positions, slots, table, history, state_stride, slot0;
static int now;

static int up(int n, int m) { return (n + m - 1) / m; }

/* Tensors of the layer after: its norm and its first router. */
typedef struct { uint64_t norm, router; int experts; } Next;

static void list_mamba(Next own, Next after, uint64_t state)
{
    const Model *m = &model;
    const int e = m->experts, w = get("dtype"), tiles = get("in.tiles"), own_c = 8 * tiles, blocks_a = up(m->c, own_c);
    const int ks = get("in.slices"), warps = get("in.warps");
    const int items = own_c * (m->conv + 1) + (e > 1 ? e * own_c : 0) + MAX_ROWS * own_c * (m->conv - 1);
    const int shared_a = ROUTE_LEN + MAX_ROWS * ((int)k_of(m->d)
        + 8) * 2 + warps * get("in.ring") * get("in.group") * 512
        + 2 * tiles * ks * 512 + MAX_ROWS * own_c * 4 + (w == 3 ? e * 2 * own_c * 4 : 0) + items * 4;
    Launch *l = add_launch("in", blocks_a, 32 * warps, get("in.blocks"), shared_a,
        TEXT("decode_in n_in=%d n_channels=%d d_conv=%d "
        "n_experts=%d renormalize=0 weight_dtype=%d act=2 n_parts=%d tiles=%d n_slices=%d group=%d ring=%d eps=1e-5",
            m->d, m->c,
        m->conv, e, w, up(m->d, 8), tiles, ks, get("in.group"), get("in.ring")));
    const uint64_t ssm_router = e > 1 ? floats(KIND_ROUTER, (uint64_t)e * m->c) : 0,
        out_router = e > 1 ? floats(KIND_ROUTER, (uint64_t)e * m->c) : 0;
    arg(l, xh), arg(l, xc), arg(l, z), arg(l, ssm_parts), arg(l, x), arg(l, next[now]), arg(l, own.norm);
    arg(l, matrix(e, 2 * m->c, m->d));
    arg(l, scale(e, 2 * m->c)), arg(l, floats(KIND_CONV, (uint64_t)m->c * m->conv)), arg(l, floats(KIND_CONV, m->c)),
        arg(l, ssm_router);
    arg(l, state), arg(l, slots), arg(l, state_stride), arg(l, ROWS_ARG), arg(l, get("top_k"));
    l->n_bytes = (int64_t)matrix_len(e > 1 ? get("top_k") : 1, 2 * m->c, m->d);

    const int n_out = m->r + 2 * m->n, xks = get("x.slices"), x_group = get("x.group");
    l = add_launch("x", e * up(n_out, 8) + (e > 1), 32 * xks, get("x.blocks"), ROUTE_LEN + xks * x_group * 512
        + xks * 512, TEXT("decode_x n_in=%d n_out=%d n_experts=%d renormalize=0 weight_dtype=%d act=2 n_parts=%d "
        "n_slices=%d group=%d ring=1", m->c, n_out, e, w, blocks_a, xks, x_group));
    arg(l, xp), arg(l, gates), arg(l, xh), arg(l, ssm_parts), arg(l, matrix(e, n_out, m->c)), arg(l, scale(e, n_out)),
        arg(l, ROWS_ARG), arg(l, get("top_k"));
    l->n_bytes = (int64_t)matrix_len(e, n_out, m->c);

    const int st = get("scan.tiles"), sks = get("scan.slices"), blocks_c = up(m->c, 8 * st);
    l = add_launch("scan", blocks_c, 32 * st * sks, 2, MAX_ROWS * ((int)k_of(e * m->r) + 8) * 2
        + MAX_ROWS * 2 * m->n * 4 + st * sks * 512 + MAX_ROWS * 8 * st * 4 + MAX_ROWS * e * 4
        + 2 * e * 8 * st * 4, TEXT("decode_scan n_channels=%d d_state=%d dt_rank=%d n_experts=%d zoh=0 weight_dtype=%d "
        "act=2 tiles=%d n_slices=%d", m->c, m->n, m->r, e, w, st, sks));
    arg(l, y), arg(l, out_parts), arg(l, xp), arg(l, gates), arg(l, xc), arg(l, z), arg(l, matrix(1, m->c, e * m->r)),
        arg(l, scale(1, m->c));
    arg(l, floats(KIND_DT_BIAS, (uint64_t)e * m->c)), arg(l, floats(KIND_A, (uint64_t)m->c * m->n)), arg(l,
        floats(KIND_ONE, m->c));
    arg(l, out_router), arg(l, state + (uint64_t)(m->conv - 1) * m->c * 4), arg(l, slots), arg(l, state_stride),
        arg(l, ROWS_ARG);
    l->n_bytes = (int64_t)matrix_len(1, m->c, e * m->r) + (int64_t)m->c * m->n * 12;

    const int oks = get("out.slices"), n_next = after.experts > 1 ? after.experts : 0;
    l = add_launch("out", up(m->d, 8), 32 * oks, get("out.blocks"),
        ROUTE_LEN + oks * get("out.ring") * get("out.group") * 512 + oks * 512
        + 8 * (n_next + 1) * 4 + (w == 3 ? e * 32 : 0),
            TEXT("decode_out n_in=%d n_out=%d n_experts=%d renormalize=0 weight_dtype=%d "
        "act=2 n_parts=%d normed=0 known=0 by_pair=0 splits=0 head_dim=64 next_experts=%d n_slices=%d group=%d "
            "ring=%d eps=1e-5", m->c,
        m->d, e, w, blocks_c, after.experts, oks, get("out.group"), get("out.ring")));
    now ^= 1;
    arg(l, x), arg(l, next[now]), arg(l, y), arg(l, 0), arg(l, out_parts), arg(l, matrix(e, m->d, m->c)), arg(l,
        scale(e, m->d));
    arg(l, after.norm), arg(l, after.router), arg(l, ROWS_ARG), arg(l, get("top_k"));
    l->n_bytes = (int64_t)matrix_len(e > 1 ? get("top_k") : 1, m->d, m->c);
}

/* ---- a run of mamba layers in one launch ---- */

static uint64_t chain_words, chain_turns;
static int max(int a, int b) { return a > b ? a : b; }

static int chain_shared(int last_experts)
{
    const Model *m = &model;
    const int e = m->experts, w = get("dtype"), per = w == 3 ? 64 : 32, routed = e > 1 ? e : 0, each = m->r + 2 * m->n;
    const int tiles = up(e * each, 8), most = up(tiles, m->c / 16), x_group = 2 * up(m->c / per / 2, 16);
    const int items = 16 * (m->conv + 1) + 16 * (m->conv - 1) + 32 * routed + 16 * e + 16
        + 8 * max(routed, last_experts > 1 ? last_experts : 0) + (w == 3 ? 32 * e + 8 * e + 8 * most + 16 : 0);
    return ROUTE_LEN + 2 * ((int)k_of(m->d) + 8) + 2 * ((int)k_of(m->c) + 8)
        + 16 * max(get("chain.group") * get("chain.ring"), get("chain.out_group") * get("chain.out_ring")) * 512
        + 16 * most * x_group * 512 + 16 * (int)k_of(e * m->r) * (w == 3 ? 1 : 2) + 16 * 512 + most * 16 * 512
        + 56 * 4 + e * (each + 1) / 2 * 8 + 2 * items * 4 + 6 * 512 * 4;
}

enum { CHAIN_TENSORS = 13 };

/* A layer's tensors in the order of the kernel's arguments; the same numbers as list_mamba's, at equal distances. */
static void chain_layer(uint64_t t[CHAIN_TENSORS], const Model *m)
{
    const int e = m->experts, each = m->r + 2 * m->n;
    t[5] = e > 1 ? floats(KIND_ROUTER, (uint64_t)e * m->c) : 0;
    t[11] = e > 1 ? floats(KIND_ROUTER, (uint64_t)e * m->c) : 0;
    t[2] = matrix(e, 2 * m->c, m->d), scale(e, 2 * m->c);
    t[3] = floats(KIND_CONV, (uint64_t)m->c * m->conv), t[4] = floats(KIND_CONV, m->c);
    t[6] = matrix(e, each, m->c), scale(e, each);
    t[7] = matrix(1, m->c, e * m->r), scale(1, m->c);
    t[8] = floats(KIND_DT_BIAS, (uint64_t)e * m->c), t[9] = floats(KIND_A, (uint64_t)m->c * m->n);
    t[10] = floats(KIND_ONE, m->c);
    t[12] = matrix(e, m->d, m->c), scale(e, m->d);
}

static Next next_of(int layer);

/* Layers [first, first + n), all mamba. Returns the norm and router after them. */
static Next list_chain(Next own, int first, int n, uint64_t state)
{
    const Model *m = &model;
    const int e = m->experts, w = get("dtype"), each = m->r + 2 * m->n, k = e > 1 ? get("top_k") : 1;
    const uint64_t parts = next[now], conv_len = (uint64_t)(m->conv - 1) * m->c * 4;
    uint64_t t[CHAIN_TENSORS] = { own.norm, own.router }, other[CHAIN_TENSORS];
    const uint64_t begin = used, norm = own.norm - base;
    const int n_before = n_pieces;
    const uint64_t norm_len = ((uint64_t)m->d * 4 + 255) / 256 * 256;
    const uint64_t router_end = norm_len + ((uint64_t)(e > 1 ? e : 0) * m->d * 4 + 255) / 256 * 256;
    used += router_end, chain_layer(other, m);                  /* how long a layer is */
    const uint64_t stride = used - begin > begin - norm ? used - begin : begin - norm;
    n_pieces = n_before;
    for (int i = 0; i < n; i++) {              /* the first norm lies far before: as far are the others */
        used = norm + (uint64_t)(i + 1) * stride;
        own = next_of(first + i + 1);
        used = norm + (uint64_t)(i + 1) * stride + router_end;  /* also where no router is */
        chain_layer(i == 0 ? t : other, m);
    }
    const int per = w == 3 ? 64 : 32;
    Launch *l = add_launch("chain", m->c / 16, 512, 1, chain_shared(own.experts),
        TEXT("decode_chain d_model=%d n_channels=%d d_conv=%d d_state=%d dt_rank=%d n_experts=%d renormalize=0 zoh=0 "
        "weight_dtype=%d dt_dtype=%d act=2 next_experts=%d group=%d ring=%d out_group=%d out_ring=%d x_group=%d "
        "n_blocks=%d eps=1e-5", m->d, m->c, m->conv, m->n, m->r, e, w, w, own.experts, get("chain.group"),
        get("chain.ring"), get("chain.out_group"), get("chain.out_ring"), 2 * up(m->c / per / 2, 16), m->c / 16));
    now ^= 1;
    l->resident = 1;
    arg(l, x), arg(l, next[now]), arg(l, parts), arg(l, chain_words), arg(l, chain_turns);
    for (int i = 0; i < 13; i++)
        arg(l, t[i]);
    arg(l, own.norm), arg(l, own.router), arg(l, state), arg(l, state + conv_len), arg(l, slots), arg(l, state_stride);
    arg(l, stride / 16), arg(l, (conv_len + (uint64_t)m->c * m->n * 4) / 16), arg(l, (uint64_t)n), arg(l, get("top_k"));
    l->n_bytes = n * ((int64_t)(matrix_len(k, 2 * m->c, m->d) + matrix_len(e, each, m->c)
        + matrix_len(1, m->c, e * m->r) + matrix_len(k, m->d, m->c)) + (int64_t)m->c * m->n * 12);
    return own;
}

static void list_attention(Next own, Next after, uint64_t state)
{
    const Model *m = &model;
    const int w = get("dtype"), hd = m->head_dim, ks = get("qkv.slices"), oks = get("out.slices");
    const int n_next = after.experts > 1 ? after.experts : 0;
    const uint64_t ring_len = (uint64_t)m->window * m->kv * hd * 2;
    Launch *l = add_launch("qkv", (m->heads + 2 * m->kv) * up(hd / 2, 4), 32 * ks, 2,
        ROUTE_LEN + MAX_ROWS * ((int)k_of(m->d) + 8) * 2
        + ks * get("qkv.ring") * get("qkv.group") * 512 + ks * 512 + 32,
            TEXT("decode_qkv n_in=%d n_heads=%d n_kv_heads=%d head_dim=%d rope=1 "
        "window=%d weight_dtype=%d act=2 n_parts=%d n_slices=%d group=%d ring=%d eps=1e-5", m->d, m->heads, m->kv, hd,
            m->window, w,
        up(m->d, 8), ks, get("qkv.group"), get("qkv.ring")));
    arg(l, q), arg(l, state), arg(l, state + ring_len), arg(l, x), arg(l, next[now]), arg(l, own.norm);
    arg(l, matrix(1, m->heads * hd, m->d)), arg(l, matrix(1, m->kv * hd, m->d)), arg(l, matrix(1, m->kv * hd, m->d));
    arg(l, scale(1, m->heads * hd)), arg(l, scale(1, m->kv * hd)), arg(l, scale(1, m->kv * hd)), arg(l, table), arg(l,
        positions);
    arg(l, slots), arg(l, state_stride), arg(l, (uint64_t)m->window), arg(l, ROWS_ARG);
    l->n_bytes = (int64_t)matrix_len(1, (m->heads + 2 * m->kv) * hd, m->d);

    l = add_launch("attention", m->kv * get("splits"), 512, 1, 16 * 2 * 16 * (hd + 8) * 2,
        TEXT("decode_attention n_heads=%d n_kv_heads=%d "
        "head_dim=%d window=%d splits=%d act=2", m->heads, m->kv, hd, m->window, get("splits")));
    l->y_rows = 1;
    arg(l, sums), arg(l, peaks), arg(l, q), arg(l, state), arg(l, state + ring_len), arg(l, positions), arg(l, slots),
        arg(l, state_stride);
    arg(l, (uint64_t)m->window), arg(l, ROWS_ARG);
    l->n_bytes = (int64_t)(2 * ring_len);

    l = add_launch("o", up(m->d, 8), 32 * oks, 2, ROUTE_LEN + oks * get("o.ring") * get("o.group") * 512
        + oks * 512 + 8 * (n_next + 1) * 4
        + (w == 3 ? 32 : 0) + MAX_ROWS * ((int)k_of(m->heads * hd) + 8) * 2,
            TEXT("decode_out n_in=%d n_out=%d n_experts=1 renormalize=0 "
        "weight_dtype=%d act=2 n_parts=1 normed=0 known=0 by_pair=0 splits=%d head_dim=%d next_experts=%d "
            "n_slices=%d group=%d ring=%d eps=1e-5",
        m->heads * hd, m->d, w, get("splits"), hd, after.experts, oks, get("o.group"), get("o.ring")));
    now ^= 1;
    arg(l, x), arg(l, next[now]), arg(l, sums), arg(l, peaks), arg(l, 0), arg(l, matrix(1, m->d, m->heads * hd)),
        arg(l, scale(1, m->d));
    arg(l, after.norm), arg(l, after.router), arg(l, ROWS_ARG), arg(l, get("top_k"));
    l->n_bytes = (int64_t)matrix_len(1, m->d, m->heads * hd);
}

static void list_mlp(Next own, Next after)
{
    const Model *m = &model;
    const int e = m->experts, w = get("dtype"), tiles = get("gated.tiles"), ks = get("gated.slices"),
        oks = get("out.slices");
    const int n_next = after.experts > 1 ? after.experts : 0, warps = get("gated.warps");
    Launch *l = add_launch("gated", up(m->f, 4 * tiles), 32 * warps, get("gated.blocks"),
        ROUTE_LEN + MAX_ROWS * ((int)k_of(m->d) + 8) * 2
        + warps * get("gated.ring") * get("gated.group") * 512 + tiles * ks * 512 + (w == 3 ? e * 8 * tiles * 4 : 0),
            TEXT("decode_gated n_in=%d "
        "n_out=%d n_experts=%d weight_dtype=%d act=2 n_parts=%d tiles=%d n_slices=%d group=%d ring=%d eps=1e-5", m->d,
            m->f, e, w, up(m->d, 8),
        tiles, ks, get("gated.group"), get("gated.ring")));
    l->grid_y = e > 1 ? get("gated.y") : 1;
    arg(l, h), arg(l, x), arg(l, next[now]), arg(l, own.norm), arg(l, matrix(e, 2 * m->f, m->d)), arg(l, scale(e,
        2 * m->f));
    arg(l, ROWS_ARG), arg(l, get("top_k"));
    l->n_bytes = (int64_t)matrix_len(e > 1 ? get("top_k") : 1, 2 * m->f, m->d);

    l = add_launch("down", up(m->d, 8), 32 * oks, get("down.blocks"),
        ROUTE_LEN + oks * get("down.ring") * get("down.group") * 512 + oks * 512
        + 8 * (n_next + 1) * 4 + (w == 3 ? e * 32 : 0),
            TEXT("decode_out n_in=%d n_out=%d n_experts=%d renormalize=0 weight_dtype=%d act=2 "
        "n_parts=%d normed=1 known=1 by_pair=1 splits=0 head_dim=64 next_experts=%d n_slices=%d group=%d ring=%d "
            "eps=1e-5", m->f, m->d, e, w,
        up(m->d, 8), after.experts, oks, get("down.group"), get("down.ring")));
    const uint64_t parts = next[now];
    now ^= 1;
    arg(l, x), arg(l, next[now]), arg(l, h), arg(l, 0), arg(l, parts), arg(l, matrix(e, m->d, m->f)), arg(l, scale(e,
        m->d));
    arg(l, after.norm), arg(l, after.router), arg(l, ROWS_ARG), arg(l, get("top_k"));
    l->n_bytes = (int64_t)matrix_len(e > 1 ? get("top_k") : 1, m->d, m->f);
}

static Next next_of(int layer)
{
    const char kind = layer < model.n_layers ? model.layers[layer % (int)strlen(model.layers)] : 0;
    const int experts = kind == 'm' || kind == 'f' ? model.experts : 1;
    return (Next){ floats(KIND_ONE, model.d), experts > 1 ? floats(KIND_ROUTER, (uint64_t)experts * model.d) : 0,
        experts };
}

static void build_list(void)
{
    const Model *m = &model;
    const int hd = m->head_dim, heads = m->heads, w = get("dtype"), blocks = up(m->d, 8);
    used = 0, n_pieces = n_launches = n_kernels = now = 0;
    x = floats(KIND_ZERO, MAX_ROWS * m->d);
    for (int i = 0; i < 2; i++)
        next[i] = floats(KIND_ZERO, (uint64_t)MAX_ROWS * 33 * blocks);
    gates = floats(KIND_ZERO, MAX_ROWS * 32), xh = piece(KIND_ZERO, MAX_ROWS * m->c * 2);
    xc = floats(KIND_ZERO, MAX_ROWS * m->c), z = floats(KIND_ZERO, MAX_ROWS * m->c);
    ssm_parts = floats(KIND_ZERO, MAX_ROWS * 32 * 512), out_parts = floats(KIND_ZERO, MAX_ROWS * 32 * 512);
    xp = floats(KIND_ZERO, (uint64_t)MAX_ROWS * m->experts * 16 * (m->r + 2 * m->n)), y = piece(KIND_ZERO,
        MAX_ROWS * m->c * 2);
    q = piece(KIND_ZERO, MAX_ROWS * heads * hd * 2), sums = floats(KIND_ZERO, (uint64_t)MAX_ROWS * heads * 32 * hd);
    peaks = floats(KIND_ZERO, MAX_ROWS * heads * 32 * 2), h = piece(KIND_ZERO,
        (uint64_t)MAX_ROWS * get("top_k") * m->f * 2);
    logits = floats(KIND_ZERO, (uint64_t)MAX_ROWS * m->vocab), best = floats(KIND_ZERO, MAX_ROWS * 8192),
        best_at = floats(KIND_ZERO, MAX_ROWS * 8192);
    tokens = floats(KIND_ZERO, 16), positions = piece(KIND_ZERO, 128), slots = floats(KIND_ZERO, 16),
        table = floats(KIND_ZERO, MAX_ROWS * hd);
    history = floats(KIND_ZERO, 1024 * 16);
    chain_words = piece(KIND_ZERO, 1 << 20), chain_turns = piece(KIND_ZERO, 4096);
    const uint64_t ring_len = (uint64_t)m->window * m->kv * hd * 2, mamba_len = ((uint64_t)(m->conv - 1) * m->c
        + (uint64_t)m->c * m->n) * 4;
    state_stride = 0;
    for (int i = 0; i < m->n_layers; i++) {
        const char kind = m->layers[i % (int)strlen(m->layers)];
        state_stride += kind == 'm' ? mamba_len : kind == 'a' ? 2 * ring_len : 0;
    }
    slot0 = piece(KIND_RING, MAX_ROWS * state_stride);

    Next own = next_of(0);
    Launch *l = add_launch("embed", blocks, 512, 0, 9 * 32 * 4 + 1024,
        TEXT("decode_embed d_model=%d weight_dtype=%d act=2 next_experts=%d", m->d, w,
        own.experts));
    arg(l, x), arg(l, next[now]), arg(l, tokens), arg(l, matrix(1, m->vocab, m->d)), arg(l, scale(1, m->vocab)), arg(l,
        own.norm), arg(l, own.router);
    arg(l, ROWS_ARG);
    uint64_t state = slot0;
    for (int i = 0; i < m->n_layers; i++) {
        const char kind = m->layers[i % (int)strlen(m->layers)];
        if (kind == 'm' && get("chain")) {
            int n = 1;
            while (i + n < m->n_layers && m->layers[(i + n) % (int)strlen(m->layers)] == 'm')
                n++;
            own = list_chain(own, i, n, state), state += (uint64_t)n * mamba_len, i += n - 1;
            continue;
        }
        const Next after = next_of(i + 1);
        if (kind == 'm')
            list_mamba(own, after, state), state += mamba_len;
        else if (kind == 'a')
            list_attention(own, after, state), state += 2 * ring_len;
        else
            list_mlp(own, after);
        own = after;
    }
    const int tiles = get("head.tiles"), ks = get("head.slices"), warps = get("head.warps"), head_blocks = up(m->vocab,
        8 * tiles);
    l = add_launch("head", head_blocks, 32 * warps, 1, ROUTE_LEN + MAX_ROWS * ((int)k_of(m->d) + 8) * 2
        + warps * get("head.ring") * get("head.group") * 512 + tiles * ks * 512 + (w == 3 ? tiles * 32 : 0),
            TEXT("decode_head n_in=%d n_out=%d "
        "weight_dtype=%d act=2 n_parts=%d tiles=%d n_slices=%d group=%d ring=%d eps=1e-5", m->d, m->vocab, w, blocks,
            tiles, ks,
        get("head.group"), get("head.ring")));
    arg(l, logits), arg(l, best), arg(l, best_at), arg(l, x), arg(l, next[now]), arg(l, own.norm), arg(l, matrix(1,
        m->vocab, m->d));
    arg(l, scale(1, m->vocab)), arg(l, ROWS_ARG);
    l->n_bytes = (int64_t)matrix_len(1, m->vocab, m->d);
    l = add_launch("feed", 16, 32, 0, 0, TEXT("decode_feed n_parts=%d history=1024", head_blocks));
    arg(l, tokens), arg(l, history), arg(l, positions), arg(l, best), arg(l, best_at), arg(l, ROWS_ARG);
}

/* ---- the device ---- */

static moss_driver cuda;
static int (*copy_on_device)(moss_cu_pointer to, moss_cu_pointer from, size_t len, moss_cu_stream stream);
static moss_cu_stream stream;

static void check(int result, const char *what)
{
    const char *words = "?";
    if (result == 0)
        return;
    cuda.get_error_string(result, &words);
    printf("FAILED: %s: %d %s\n", what, result, words);
    exit(1);
}

static void find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    if (!symbol) {
        printf("FAILED: libcuda.so.1 lacks %s\n", name);
        exit(1);
    }
}

static int n_processors;

static void open_device(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    int device;
    moss_cu_context context;
    char name[100];
    if (!library) {
        printf("FAILED: %s\n", dlerror());
        exit(1);
    }
#define CUDA_SYMBOL(id, name, need, arguments) find(library, name, &cuda.id);
#include "../../runtime/cuda_syms.def"
#undef CUDA_SYMBOL
    find(library, "cuMemcpyDtoDAsync_v2", &copy_on_device);
    check(cuda.init(0), "init");
    check(cuda.device_get(&device, 0), "device");
    check(cuda.context_retain(&context, device), "context");
    check(cuda.context_push(context), "push");
    check(cuda.device_get_name(name, sizeof name, device), "name");
    check(cuda.device_get_attribute(&n_processors, MOSS_CU_DEVICE_PROCESSORS, device), "processors");
    check(cuda.stream_create(&stream, MOSS_CU_STREAM_NON_BLOCKING), "stream");
    printf("%s, %d multiprocessors\n", name, n_processors);
}

static moss_cu_function load_text(char *ptx, const char *label)
{
    char log[4096] = "", name[256];
    int options[2] = { MOSS_CU_JIT_ERROR_LOG, MOSS_CU_JIT_ERROR_LOG_LEN };
    void *values[2] = { log, (void *)(uintptr_t)sizeof log };
    moss_cu_module module;
    moss_cu_function function;
    const int result = cuda.module_load(&module, ptx, 2, options, values);
    if (result)
        printf("%s: %s\n", label, log);
    check(result, label);
    const char *entry = strstr(ptx, ".entry ");
    sscanf(entry + 7, "%255[A-Za-z0-9_]", name);
    check(cuda.module_get_function(&function, module, name), name);
    return function;
}

static void load_kernels(const char *folder)
{
    for (int i = 0; i < n_kernels; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s.ptx", folder, kernels[i].file);
        FILE *file = fopen(path, "rb");
        if (!file) {
            printf("FAILED: no %s: %s\n", path, kernels[i].text);
            exit(1);
        }
        static char ptx[4 << 20];
        ptx[fread(ptx, 1, sizeof ptx - 1, file)] = 0;
        fclose(file);
        kernels[i].function = load_text(ptx, kernels[i].text);
        check(cuda.function_set(kernels[i].function, MOSS_CU_FUNCTION_SHARED, 227 * 1024), "shared");
    }
}

static uint64_t seed = 88172645463325252u;
static float random_float(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (float)(int32_t)(seed >> 32) * (1.0f / 2147483648.0f);
}

static uint16_t half_of(float value)     /* normal halves only */
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const int exponent = (int)(bits >> 23 & 255) - 112;
    return (uint16_t)((bits >> 16 & 0x8000) | (exponent <= 0 ? 0 : (uint32_t)exponent << 10 | (bits >> 13 & 1023)));
}

/* Random numbers everywhere, from one block that is repeated at odd distances. */
static void fill_device(void)
{
    enum { block_len = 48 << 20 };
    uint8_t *block = malloc(block_len);
    moss_cu_pointer device_block;
    check(cuda.memory_alloc(&device_block, block_len), "block");
    for (size_t i = 0; i < block_len / 2; i++)
        if (get("dtype") == 3)
            ((uint16_t *)block)[i] = (uint16_t)(random_float() * 32767.0f);
        else
            ((uint16_t *)block)[i] = half_of(random_float() * 0.05f);
    check(cuda.copy_to_device(device_block, block, block_len, stream), "copy");
    check(cuda.memory_set(base, 0, used, stream), "zero");
    float *values = malloc(64 << 20);
    size_t shift = 0;
    for (int i = 0; i < n_pieces; i++) {
        const Piece *p = &pieces[i];
        if (p->kind == KIND_WEIGHTS) {
            for (uint64_t at = 0; at < p->len; ) {
                const size_t n = p->len - at < block_len - shift ? (size_t)(p->len - at) : block_len - shift;
                check(copy_on_device(base + p->at + at, device_block + shift, n, stream), "fill");
                at += n, shift = (shift + n) % block_len / 256 * 256;
            }
            shift = (shift + 65536 * 3 + 256 * 7) % (block_len / 2);
        } else if (p->kind != KIND_ZERO && p->kind != KIND_RING) {
            for (uint64_t j = 0; j < p->len / 4; j++) {
                const float r = random_float();
                values[j] = p->kind == KIND_SCALE ? 0.05f / 127 : p->kind == KIND_ROUTER ? 0.06f * r
                    : p->kind == KIND_ONE ? 1 + 0.1f * r
                    : p->kind == KIND_CONV ? 0.5f * r : p->kind == KIND_DT_BIAS ? -4
                        + r : -1.442695f * (float)(j % 16 + 1);
            }
            check(cuda.copy_to_device(base + p->at, values, p->len, stream), "values");
            check(cuda.stream_wait(stream), "wait");
        }
    }
    check(cuda.stream_wait(stream), "wait");
    free(values), free(block);
}

static void reset_rows(void)
{
    int32_t ids[16], slot[16];
    int64_t at[16];
    float angles[16 * 256];
    check(cuda.memory_set(slot0, 0, MAX_ROWS * state_stride, stream), "state");
    for (int i = 0; i < 16; i++)
        ids[i] = 1000 + 77 * i, slot[i] = i, at[i] = get("position");
    for (int i = 0; i < 16 * 256; i++)
        angles[i] = i / 32 % 2 ? 0.6f : 0.8f;
    check(cuda.copy_to_device(tokens, ids, 64, stream), "tokens");
    check(cuda.copy_to_device(slots, slot, 64, stream), "slots");
    check(cuda.copy_to_device(positions, at, 128, stream), "positions");
    check(cuda.copy_to_device(table, angles, (size_t)MAX_ROWS * model.head_dim * 4, stream), "table");
    check(cuda.stream_wait(stream), "wait");
}

static void launch_one(const Launch *l, int n_rows, int dependent)
{
    uint64_t values[MAX_ARGS];
    void *arguments[MAX_ARGS];
    for (int i = 0; i < l->n_args; i++) {
        values[i] = l->args[i] == ROWS_ARG ? (uint64_t)n_rows : l->args[i];
        arguments[i] = &values[i];
    }
    moss_cu_launch_attribute attributes[2] = { { .id = MOSS_CU_LAUNCH_DEPENDENT, .value.on = 1 } };
    uint32_t n_attributes = dependent != 0;
    if (l->resident && get("coop"))
        attributes[n_attributes++] = (moss_cu_launch_attribute){ .id = MOSS_CU_LAUNCH_COOPERATIVE, .value.on = 1 };
    const moss_cu_launch config = { { (uint32_t)l->grid_x, (uint32_t)(l->y_rows ? n_rows : l->grid_y), 1 },
        { (uint32_t)l->threads, 1, 1 },
        (uint32_t)l->shared_len, stream, attributes, n_attributes };
    check(cuda.launch(&config, kernels[l->kernel].function, arguments, NULL), kernels[l->kernel].text);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct { const Launch **list; int n; } List;

static moss_cu_graph_exec capture(const List *list, int n_rows, int dependent)
{
    moss_cu_graph graph;
    moss_cu_graph_exec exec;
    check(cuda.capture_begin(stream, MOSS_CU_CAPTURE_THREAD), "capture");
    for (int i = 0; i < list->n; i++)
        launch_one(list->list[i], n_rows, dependent && i > 0);
    check(cuda.capture_end(stream, &graph), "capture end");
    check(cuda.graph_instantiate(&exec, graph, 0), "instantiate");
    check(cuda.graph_destroy(graph), "destroy");
    return exec;
}

/* Seconds a launch of the graph: the best of some rounds. */
static double time_graph(moss_cu_graph_exec exec, int n)
{
    double best_time = 1e9;
    for (int i = 0; i < 5; i++)
        check(cuda.graph_launch(exec, stream), "launch");
    check(cuda.stream_wait(stream), "run");
    for (int round = 0; round < 5; round++) {
        const double begin = seconds();
        for (int i = 0; i < n; i++)
            check(cuda.graph_launch(exec, stream), "launch");
        check(cuda.stream_wait(stream), "run");
        const double taken = (seconds() - begin) / n;
        best_time = taken < best_time ? taken : best_time;
    }
    return best_time;
}

static const char read_ptx[] =
    ".version 7.4\n.target sm_80\n.address_size 64\n"
    ".visible .entry read_all(.param .u64 p, .param .u64 n, .param .u64 out) .maxntid 512,1,1\n{\n"
    ".reg .pred %p; .reg .b64 %a<8>; .reg .b32 %r<60>;\n"
    "ld.param.u64 %a0, [p]; ld.param.u64 %a1, [n]; ld.param.u64 %a5, [out]; add.u64 %a1, %a0, %a1;\n"
    "mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %nctaid.x; mov.u32 %r50, 0;\n"
    "mul.wide.u32 %a2, %r1, 65536; mul.wide.u32 %a3, %r0, 16; add.u64 %a0, %a0, %a2; add.u64 %a0, %a0, %a3; "
        "mul.wide.u32 %a4, %r2, 65536;\n"
    "loop: setp.ge.u64 %p, %a0, %a1; @%p bra done;\n"
#define READ4(a, b, c, d, at) \
    "ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%r" a ", %r" b ", %r" c ", %r" d "}, [%a0+" at "];\n"
    READ4("10", "11", "12", "13", "0") READ4("14", "15", "16", "17", "8192") READ4("18", "19", "20", "21",
        "16384") READ4("22", "23", "24", "25", "24576")
    READ4("26", "27", "28", "29", "32768") READ4("30", "31", "32", "33", "40960") READ4("34", "35", "36", "37",
        "49152") READ4("38", "39", "40", "41", "57344")
#define EAT(a, b) "xor.b32 %r50, %r50, %r" a "; xor.b32 %r50, %r50, %r" b ";\n"
    EAT("10", "13") EAT("14", "17") EAT("18", "21") EAT("22", "25") EAT("26", "29") EAT("30", "33") EAT("34",
        "37") EAT("38", "41")
    "add.u64 %a0, %a0, %a4; bra loop;\n"
    "done: setp.ne.u32 %p, %r50, 305419896; @%p bra end; st.global.u32 [%a5], %r50;\nend: ret;\n}\n";

/* GB/s of reading that much in one launch. */
static double read_ceiling(uint64_t len)
{
    static char ptx[sizeof read_ptx];
    memcpy(ptx, read_ptx, sizeof ptx);
    const moss_cu_function function = load_text(ptx, "read");
    uint64_t from = base, n = len / 65536 * 65536, out = tokens;
    void *arguments[] = { &from, &n, &out };
    const moss_cu_launch config = { { (uint32_t)n_processors * 4, 1, 1 }, { 512, 1, 1 }, 0, stream, NULL, 0 };
    double best_time = 1e9;
    for (int round = 0; round < 8; round++) {
        const double begin = seconds();
        for (int i = 0; i < 8; i++)
            check(cuda.launch(&config, function, arguments, NULL), "read");
        check(cuda.stream_wait(stream), "read");
        const double taken = (seconds() - begin) / 8;
        best_time = taken < best_time ? taken : best_time;
    }
    return (double)n / best_time * 1e-9;
}

static uint64_t hash_history(void)
{
    static int32_t kept[1024 * 16];
    uint64_t hash = 1469598103934665603u;
    check(cuda.copy_to_host(kept, history, sizeof kept, stream), "history");
    check(cuda.stream_wait(stream), "history");
    for (int i = 0; i < 1024 * 16; i++)
        hash = (hash ^ (uint32_t)kept[i]) * 1099511628211u;
    return hash;
}

/* Tokens of 40 greedy steps from the same start, as a hash: the same with and without dependent launch. */
static uint64_t greedy(moss_cu_graph_exec exec)
{
    check(cuda.memory_set(history, 0, 1024 * 16 * 4, stream), "history");
    reset_rows();
    for (int i = 0; i < 40; i++)
        check(cuda.graph_launch(exec, stream), "launch");
    return hash_history();
}

static void run_batches(double ceiling)
{
    const Launch *all[MAX_LAUNCHES];
    int64_t n_bytes = 0;
    for (int i = 0; i < n_launches; i++)
        all[i] = &launches[i], n_bytes += launches[i].n_bytes;
    const List list = { all, n_launches };
    printf("%d launches, %.1f MB read a token at batch 1, ceiling %.0f GB/s\n", n_launches, (double)n_bytes * 1e-6,
        ceiling);
    for (int n_rows = 1; n_rows <= (get("chain") ? 1 : 16); n_rows *= 4) {
        const moss_cu_graph_exec exec = capture(&list, n_rows, get("dependent"));
        const uint64_t hash = greedy(exec), again = greedy(exec);
        const double taken = time_graph(exec, 100);
        float values[4];
        check(cuda.copy_to_host(values, logits, sizeof values, stream), "logits");
        check(cuda.stream_wait(stream), "logits");
        printf("batch %2d: %8.0f tok/s  %7.1f us  (%.0f%% of batch 1's bytes at the ceiling) tokens %016llx %s "
            "logits %.4f %.4f %.4f\n", n_rows,
            n_rows / taken, taken * 1e6, 100 * (double)n_bytes / ceiling * 1e-9 / taken, (unsigned long long)hash,
            hash == again ? "again" : "DIFFERENT AGAIN", values[0], values[1], values[2]);
        cuda.graph_exec_destroy(exec);
    }
}

/* One kind of kernel after another with itself, over the layers' weights, batch 1. */
static void run_kinds(void)
{
    static const char *const kinds[] = { "embed", "chain", "in", "x", "scan", "out", "qkv", "attention", "o", "gated",
        "down", "head", "feed" };
    double whole = 0;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const Launch *own[MAX_LAUNCHES];
        int n = 0, n_model = 0;
        int64_t n_bytes = 0;
        for (int i = 0; i < n_launches; i++)
            if (strcmp(kernels[launches[i].kernel].kind, kinds[k]) == 0)
                own[n++] = &launches[i], n_bytes = launches[i].n_bytes;
        if (!(n_model = n))
            continue;
        for (; n < 40; n++)
            own[n] = own[n - n_model];
        const List list = { own, n };
        reset_rows();
        const moss_cu_graph_exec exec = capture(&list, 1, get("dependent"));
        const double taken = time_graph(exec, 20) / n;
        cuda.graph_exec_destroy(exec);
        whole += taken * n_model;
        printf("%-10s %6.2f us x %2d = %6.1f us, %7.2f MB, %5.0f GB/s\n", kinds[k], taken * 1e6, n_model,
            taken * 1e6 * n_model,
            (double)n_bytes * 1e-6, (double)n_bytes / taken * 1e-9);
    }
    printf("sum %.1f us\n", whole * 1e6);
}

int main(int argc, char **argv)
{
    const int is_run = argc > 2 && strcmp(argv[1], "run") == 0;
    if (!is_run && !(argc > 1 && strcmp(argv[1], "list") == 0)) {
        fputs("usage: decode_bench list [KEY=VALUE...] | run FOLDER [KEY=VALUE...]\n", stderr);
        return 2;
    }
    for (int i = is_run ? 3 : 2; i < argc; i++)
        set(argv[i]);
    model = models[get("model")];
    build_list();
    for (int i = 0; i < n_kernels && !is_run; i++)
        printf("%s %d %d %d %s\n", kernels[i].file, get("sm"), kernels[i].threads, kernels[i].blocks, kernels[i].text);
    if (!is_run)
        return 0;
    open_device();
    check(cuda.memory_alloc(&base, used + 4096), "memory");
    build_list();
    load_kernels(argv[2]);
    fill_device();
    const double ceiling = read_ceiling(850u << 20);
    run_batches(ceiling);
    if (get("kinds"))
        run_kinds();
    return 0;
}
