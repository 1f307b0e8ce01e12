/* Cases of the differential test.
 *
 * Random graphs are dealt, not drawn: for each property the list of its values is shuffled and
 * handed out to the end before it is shuffled again, so that a few dozen graphs meet every value
 * of every list and combine them differently each time.
 * Input: a seed. Output: JSON texts. Invariant: every graph made here is a valid one.
 */
#include "cases.h"
#include "golden.h"

#include "../../compiler/graph_read.h"
#include "../../ir/text.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define N_OF(list) ((int)(sizeof (list) / sizeof (list)[0]))

uint64_t stream_next(Stream *stream)
{
    uint64_t z = stream->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

int stream_below(Stream *stream, int n)
{
    return (int)((stream_next(stream) >> 32) * (uint64_t)n >> 32);
}

double stream_uniform(Stream *stream)
{
    return (double)(int64_t)stream_next(stream) * 0x1p-63;
}

/* --- Dealing --- */

/* Properties of the graph, then of its layers; each has its own stack of cards. */
typedef enum {
    DEAL_MODEL, DEAL_VOCAB, DEAL_EXPERTS, DEAL_MODES, DEAL_SHAPE, DEAL_TOKENS, DEAL_TIED, DEAL_ZOH,
    DEAL_RENORMALIZE, DEAL_EPS, DEAL_DRAW,
    DEAL_KIND, DEAL_INNER, DEAL_STATE, DEAL_CONV, DEAL_RANK, DEAL_OVERRIDE, DEAL_HEADS,
    DEAL_HEAD_DIM, DEAL_WINDOW, DEAL_THETA, DEAL_FF, N_DEALS
} Deal;

enum { MOST_CARDS = 16 };

typedef struct {
    uint64_t seed;
    int dealt[N_DEALS];   /* cards so far */
} Dealer;

/* The next card of `n`: each of 0..n-1 once, shuffled, before any comes again. */
static int deal(Dealer *dealer, Deal what, int n)
{
    int cards[MOST_CARDS], at = dealer->dealt[what]++;
    if (n > MOST_CARDS)
        BUG("%d cards", n);
    Stream stream = { dealer->seed ^ (uint64_t)what << 56 ^ (uint64_t)(at / n) << 32 };
    stream_next(&stream);
    for (int i = 0; i < n; i++) {   /* shuffled as it grows */
        int j = stream_below(&stream, i + 1);
        cards[i] = cards[j];
        cards[j] = i;
    }
    return cards[at % n];
}

#define DEAL_FROM(dealer, what, list) ((list)[deal((dealer), (what), N_OF(list))])

/* --- Layers --- */

/* d_model is needed for defaults; experts for the layers' own. */
typedef struct { Dealer *dealer; Text *json; int d_model, n_experts; } Writer;

/* A layer's own experts always bring their own top_k: the graph's modes may ask for more. */
static void write_override(Writer *writer)
{
    static const char *const overrides[] = {
        "", "", "", ", \"experts\": 1", ", \"experts\": 2, \"top_k\": 1", ", \"top_k\": \"auto\"",
        ", \"experts\": 5, \"top_k\": 3", ", \"experts\": 16, \"top_k\": \"auto\"",
    };
    text_printf(writer->json, "%s", DEAL_FROM(writer->dealer, DEAL_OVERRIDE, overrides));
}

static void write_inner(Writer *writer)
{
    int d = writer->d_model;
    const int sizes[] = { 0, d + 3, d + d / 2, 17, 9, 48, d };   /* 0: the default, 2 d */
    int size = DEAL_FROM(writer->dealer, DEAL_INNER, sizes);
    if (size)
        text_printf(writer->json, ", \"d_inner\": %d", size);
}

static void write_mamba(Writer *writer)
{
    static const int states[] = { 1, 5, 16, 17 }, convs[] = { 1, 3, 4 }, ranks[] = { 0, 1, 3, 5, 7 };
    text_printf(writer->json, "{ \"op\": \"mamba\"");
    write_inner(writer);
    text_printf(writer->json, ", \"d_state\": %d", DEAL_FROM(writer->dealer, DEAL_STATE, states));
    text_printf(writer->json, ", \"d_conv\": %d", DEAL_FROM(writer->dealer, DEAL_CONV, convs));
    int rank = DEAL_FROM(writer->dealer, DEAL_RANK, ranks);
    if (rank)
        text_printf(writer->json, ", \"dt_rank\": %d", rank);
    write_override(writer);
    text_printf(writer->json, " }");
}

static void write_attention(Writer *writer)
{
    static const int heads[][2] = {   /* heads, kv_heads; 0: the default */
        { 1, 1 }, { 3, 1 }, { 3, 3 }, { 6, 3 }, { 5, 0 }, { 8, 2 }, { 7, 1 }, { 4, 4 },
    };
    static const int dims[] = { 2, 4, 6, 8, 10, 16, 22, 40 };
    static const char *const windows[] = { "1", "3", "7", "null" };
    static const char *const thetas[] = { "", ", \"rope_theta\": 0", ", \"rope_theta\": 500.0" };
    const int *head = DEAL_FROM(writer->dealer, DEAL_HEADS, heads);
    text_printf(writer->json, "{ \"op\": \"attention\", \"heads\": %d", head[0]);
    if (head[1])
        text_printf(writer->json, ", \"kv_heads\": %d", head[1]);
    text_printf(writer->json, ", \"head_dim\": %d", DEAL_FROM(writer->dealer, DEAL_HEAD_DIM, dims));
    text_printf(writer->json, ", \"window\": %s", DEAL_FROM(writer->dealer, DEAL_WINDOW, windows));
    text_printf(writer->json, "%s }", DEAL_FROM(writer->dealer, DEAL_THETA, thetas));
}

static void write_mlp(Writer *writer)
{
    static const int sizes[] = { 1, 5, 16, 31, 48, 67 };
    text_printf(writer->json, "{ \"op\": \"mlp\", \"d_ff\": %d",
                DEAL_FROM(writer->dealer, DEAL_FF, sizes));
    write_override(writer);
    text_printf(writer->json, " }");
}

static void write_layer(Writer *writer)
{
    static void (*const kinds[])(Writer *) = {
        write_mamba, write_attention, write_mlp, write_mamba,
    };
    DEAL_FROM(writer->dealer, DEAL_KIND, kinds)(writer);
}

/* A shape is x for a layer and 2(...) for a group repeated twice. Returns what follows it. */
static const char *write_layers(Writer *writer, const char *shape)
{
    text_printf(writer->json, "[ ");
    for (bool first = true; *shape && *shape != ')'; first = false) {
        text_printf(writer->json, first ? "" : ",\n    ");
        if (*shape == 'x') {
            write_layer(writer);
            shape++;
            continue;
        }
        text_printf(writer->json, "{ \"repeat\": %c, \"of\": ", *shape);
        shape = write_layers(writer, shape + 2) + 1;
        text_printf(writer->json, " }");
    }
    text_printf(writer->json, " ]");
    return shape;
}

/* --- Graphs --- */

/* top_k of E experts; E in 1, 2, 3, 8, 16. Over the cases every k of every E appears. */
static void write_modes(Writer *writer)
{
    static const char *const modes[][6] = {
        { "" },
        { "1", "2", "[1, 2]", "[2, 1]", "\"auto\"", "" },
        { "1", "2", "3", "[3, 1, 2]", "\"auto\"", "[1, 2, 3]" },
        { "[8, 7, 6, 5, 4, 3, 2, 1]", "[1, 2, 3, 4, 5, 6, 7, 8]", "\"auto\"", "[2, 3]", "8", "" },
        { "[1, 2, 3, 4, 5, 6, 7, 8]", "[16, 15, 14, 13, 12, 11, 10, 9]", "\"auto\"", "2", "16", "" },
    };
    static const int experts[] = { 1, 2, 3, 8, 16 };
    int which = deal(writer->dealer, DEAL_EXPERTS, N_OF(experts));
    int mode = deal(writer->dealer, DEAL_MODES, N_OF(modes[0]));
    writer->n_experts = experts[which];
    if (which == 0)
        return;
    text_printf(writer->json, " \"experts\": %d,", experts[which]);
    if (*modes[which][mode])
        text_printf(writer->json, " \"top_k\": %s,", modes[which][mode]);
}

static const char *write_graph(Arena *arena, Dealer *dealer, const char *name, int *vocab)
{
    static const int models[] = { 20, 33, 40, 12, 7, 64 }, vocabs[] = { 37, 64, 101, 131, 300 };
    static const char *const flags[] = { "false", "true" }, *const eps[] = { "1e-5", "0.01", "1e-6" };
    static const char *const shapes[] = {
        "x", "xx", "2(x)x", "xxx", "2(xx)", "2(2(x))x", "xxxxx", "x2(xx)",
    };
    Text json = { 0 };
    Writer writer = { .dealer = dealer, .json = &json };
    writer.d_model = DEAL_FROM(dealer, DEAL_MODEL, models);
    *vocab = DEAL_FROM(dealer, DEAL_VOCAB, vocabs);
    text_printf(&json, "{ \"format\": \"mossnet-graph/1\", \"name\": \"%s\",\n ", name);
    text_printf(&json, " \"vocab_size\": %d, \"d_model\": %d,", *vocab, writer.d_model);
    write_modes(&writer);
    text_printf(&json, "\n  \"norm_eps\": %s,", DEAL_FROM(dealer, DEAL_EPS, eps));
    text_printf(&json, " \"tie_embeddings\": %s,", DEAL_FROM(dealer, DEAL_TIED, flags));
    text_printf(&json, " \"renormalize\": %s,", DEAL_FROM(dealer, DEAL_RENORMALIZE, flags));
    if (deal(dealer, DEAL_ZOH, 3) == 0)
        text_printf(&json, " \"discretization\": \"zoh\",");
    text_printf(&json, "\n  \"layers\": ");
    write_layers(&writer, DEAL_FROM(dealer, DEAL_SHAPE, shapes));
    text_printf(&json, " }\n");
    const char *text = arena_strndup(arena, json.data, json.len);
    text_free(&json);
    return text;
}

static int32_t *draw_tokens(Arena *arena, Stream *stream, int n_tokens, int vocab)
{
    int32_t *tokens = arena_array(arena, int32_t, (size_t)n_tokens);
    for (int t = 0; t < n_tokens; t++)
        tokens[t] = stream_below(stream, vocab);
    return tokens;
}

static Case random_case(Arena *arena, Dealer *dealer, int index)
{
    static const int lengths[] = { 1, 2, 7, 33, 130 };
    static const Draw draws[] = { DRAW_PLAIN, DRAW_VECTORS, DRAW_VECTORS, DRAW_VECTORS, DRAW_TWINS };
    Stream stream = { dealer->seed + (uint64_t)index };
    const char *name = arena_printf(arena, "random-%03d", index);
    int vocab, n_tokens = DEAL_FROM(dealer, DEAL_TOKENS, lengths);
    const char *graph = write_graph(arena, dealer, name, &vocab);
    return (Case){
        .name = name, .graph_text = graph, .n_tokens = n_tokens,
        .weights = arena_printf(arena, "random:%d", index),
        .draw = DEAL_FROM(dealer, DEAL_DRAW, draws), .seed = stream_next(&stream),
        .tokens = draw_tokens(arena, &stream, n_tokens, vocab),
    };
}

/* --- Cases made for one reason each --- */

typedef struct { const char *name; int vocab, n_tokens; Draw draw; const char *graph; } Special;

#define GRAPH(vocab, rest) \
    "{ \"format\": \"mossnet-graph/1\", \"name\": \"special\", \"vocab_size\": " #vocab ", " rest " }\n"

static const Special specials[] = {
    /* Every size 1, and the smallest vocabulary a choice can be made from. */
    { "smallest", 2, 7, DRAW_VECTORS, GRAPH(2, "\"d_model\": 1, \"layers\": ["
      "{ \"op\": \"mamba\", \"d_inner\": 1, \"d_state\": 1, \"d_conv\": 1, \"dt_rank\": 1 },"
      "{ \"op\": \"attention\", \"heads\": 1, \"head_dim\": 2 }, { \"op\": \"mlp\", \"d_ff\": 1 } ]") },
    /* An odd k cuts a pair of twins: the lower index must win, at every token and router. */
    { "twins", 37, 33, DRAW_TWINS, GRAPH(37, "\"d_model\": 20, \"experts\": 16,"
      "\"top_k\": [1, 3, 7, 15], \"layers\": [ { \"op\": \"mamba\" }, { \"op\": \"mlp\", \"d_ff\": 24 } ]") },
    { "twins-of-three", 37, 7, DRAW_TWINS, GRAPH(37, "\"d_model\": 33, \"experts\": 3,"
      "\"top_k\": [1, 2], \"renormalize\": true,"
      "\"layers\": [ { \"op\": \"mamba\" }, { \"op\": \"mlp\", \"d_ff\": 24 } ]") },
    /* All probabilities equal: experts 0 to k-1 at every token, the others never. */
    { "all-equal", 41, 33, DRAW_EQUAL, GRAPH(41, "\"d_model\": 24, \"experts\": 8,"
      "\"top_k\": [3, 8, 1], \"layers\": [ { \"op\": \"mamba\" }, { \"op\": \"mlp\", \"d_ff\": 24 } ]") },
    /* One token, one of sixteen experts: fifteen chosen by nobody. */
    { "idle-experts", 50, 1, DRAW_VECTORS, GRAPH(50, "\"d_model\": 40, \"experts\": 16,"
      "\"layers\": [ { \"op\": \"mamba\" }, { \"op\": \"mlp\", \"d_ff\": 24 } ]") },
    { "window-longer-than-text", 64, 33, DRAW_VECTORS, GRAPH(64, "\"d_model\": 32, \"layers\": ["
      "{ \"op\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"window\": 200 } ]") },
    /* The window's edge falls on and beside the edges of chunks. */
    { "window-wraps", 64, 130, DRAW_VECTORS, GRAPH(64, "\"d_model\": 32,"
      "\"layers\": [ { \"repeat\": 2, \"of\": ["
      "{ \"op\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"window\": 64 },"
      "{ \"op\": \"attention\", \"heads\": 2, \"window\": 33 } ] } ]") },
    /* Errors add up over many layers; the state's too over many tokens. */
    { "deep", 64, 33, DRAW_VECTORS, GRAPH(64, "\"d_model\": 20, \"experts\": 4, \"top_k\": 2,"
      "\"layers\": [ { \"repeat\": 8, \"of\": [ { \"op\": \"mamba\" },"
      "{ \"op\": \"mlp\", \"d_ff\": 40 } ] } ]") },
    { "long", 37, 700, DRAW_VECTORS, GRAPH(37, "\"d_model\": 20, \"experts\": 4, \"top_k\": 2,"
      "\"layers\": [ { \"op\": \"mamba\" }, { \"op\": \"attention\", \"heads\": 2 } ]") },
    { "wide", 300, 7, DRAW_VECTORS, GRAPH(300, "\"d_model\": 200, \"experts\": 3, \"top_k\": 2,"
      "\"layers\": [ { \"op\": \"mamba\", \"d_inner\": 333 }, { \"op\": \"mlp\", \"d_ff\": 517 } ]") },
};

static Case special_case(Arena *arena, uint64_t seed, int index)
{
    const Special *special = &specials[index];
    Stream stream = { seed ^ (uint64_t)(index + 1) << 40 };
    return (Case){
        .name = special->name, .graph_text = special->graph, .draw = special->draw,
        .weights = arena_printf(arena, "random:%d", 1000 + index), .seed = stream_next(&stream),
        .n_tokens = special->n_tokens,
        .tokens = draw_tokens(arena, &stream, special->n_tokens, special->vocab),
    };
}

/* --- Golden folders --- */

static Case golden_case(Arena *arena, const char *dir, const char *name)
{
    Case out = {
        .name = arena_printf(arena, "golden-%s", name), .seed = 1,
        .graph_path = arena_printf(arena, "%s/%s/graph.json", dir, name),
        .weights = arena_printf(arena, "%s/%s/weights.safetensors", dir, name),
    };
    out.tokens = golden_tokens(arena, arena_printf(arena, "%s/%s/tokens.txt", dir, name),
                               &out.n_tokens);
    return out;
}

int cases_make(Arena *arena, uint64_t seed, int n_random, const char *golden_dir, Case **cases)
{
    const char **names = NULL;
    int n = 0, n_golden = golden_dir ? golden_list(arena, golden_dir, &names) : 0;
    if (golden_dir && n_golden == 0)
        return -1;
    Stream stream = { seed };
    Dealer dealer = { .seed = stream_next(&stream) };
    *cases = arena_array(arena, Case, (size_t)(N_OF(specials) + n_random + n_golden));
    for (int i = 0; i < N_OF(specials); i++)
        (*cases)[n++] = special_case(arena, seed, i);
    for (int i = 0; i < n_random; i++)
        (*cases)[n++] = random_case(arena, &dealer, i);
    for (int i = 0; i < n_golden; i++)
        (*cases)[n++] = golden_case(arena, golden_dir, names[i]);
    return n;
}

int cases_of_graph(Arena *arena, uint64_t seed, const char *path, Case **cases)
{
    enum { N_TOKENS = 20 };
    Stream stream = { seed };
    Diags *diags = diags_new(arena);
    const Graph *graph = graph_read_file(arena, diags, path);
    if (!graph) {
        Text words = { 0 };
        diags_print(diags, &words);
        fputs(words.data, stderr);
        text_free(&words);
        return -1;
    }
    *cases = arena_array(arena, Case, 1);
    **cases = (Case){
        .name = arena_printf(arena, "graph-%s", graph->name), .graph_path = path, .weights = "random:1",
        .seed = stream_next(&stream), .n_tokens = N_TOKENS,
        .tokens = draw_tokens(arena, &stream, N_TOKENS, (int)graph->vocab_size),
    };
    return 1;
}
