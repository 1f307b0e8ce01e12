/* A search by several processes, without processes: messages that come whole, cut or senseless; and batches given out
 * to any number of workers, some of them lost, which must try what one would.
 */
#include "../../compiler/outfile.h"
#include "../../tuner/identity.h"
#include "../../tuner/mpi_protocol.h"

#include <arpa/inet.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "models.h"

static Arena *arena;
static char folder[64];

static uint64_t draw(uint64_t *state, uint64_t n)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return (*state >> 11) % n;
}

/* ---- messages ---- */

static void test_wire(void)
{
    char address[256];
    int listener = wire_listen(true, address, sizeof address);
    CU_ASSERT_FATAL(listener >= 0);
    Wire here = { .fd = wire_connect(address, 5, NULL) }, there = { .fd = accept(listener, NULL, NULL) };
    CU_ASSERT_FATAL(here.fd >= 0 && there.fd >= 0);
    WireMessage message;
    Text text = { 0 };
    CU_ASSERT_EQUAL(wire_receive(&there, &message), 0);
    wire_put_int(&text, -5);
    wire_put_text(&text, "some words");
    wire_put_double(&text, -0.25);
    CU_ASSERT_TRUE(wire_send(&here, 7, &text));
    CU_ASSERT_TRUE(wire_send(&here, 8, NULL));
    CU_ASSERT_TRUE_FATAL(wire_wait(&there, &message));
    CU_ASSERT_EQUAL(message.kind, 7);
    CU_ASSERT_EQUAL(wire_int(&message), -5);
    CU_ASSERT_STRING_EQUAL(wire_text(&message, arena), "some words");
    CU_ASSERT_EQUAL(wire_double(&message), -0.25);
    CU_ASSERT_FALSE(message.bad);
    CU_ASSERT_EQUAL(wire_int(&message), 0);
    CU_ASSERT_TRUE(message.bad);
    CU_ASSERT_TRUE_FATAL(wire_wait(&there, &message));
    CU_ASSERT_EQUAL(message.kind, 8);
    /* A message of 4 GiB is none. */
    CU_ASSERT_EQUAL(write(here.fd, "\377\377\377\377\1", 5), 5);
    CU_ASSERT_FALSE(wire_wait(&there, &message));
    wire_close(&here);
    wire_close(&there);
    CU_ASSERT_FALSE(wire_wait(&there, &message));
    close(listener);
    CU_ASSERT_EQUAL(wire_connect(address, 1, NULL), -1);
    CU_ASSERT_EQUAL(wire_connect("nonsense", 1, NULL), -1);
}

/* Of two who listen at one port of two addresses, the one that greets is found; `words`: what the other says. */
static void check_stranger(const char *words)
{
    char address[256];
    int port, one = 1, listener = wire_listen(true, address, sizeof address);
    CU_ASSERT_EQUAL_FATAL(sscanf(address, "%d 127.0.0.1", &port), 1);
    struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    int stranger = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(stranger, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    CU_ASSERT_EQUAL_FATAL(bind(stranger, (struct sockaddr *)&there, sizeof there) | listen(stranger, 4), 0);
    const pid_t child = fork();
    if (child == 0) {
        Wire first = { .fd = accept(stranger, NULL, NULL) };
        if (*words)
            wire_greet(&first, words);
        poll(&(struct pollfd){ .fd = listener, .events = POLLIN }, 1, 20000);
        Wire second = { .fd = accept(listener, NULL, NULL) };
        _exit(wire_greet(&second, "it is me") ? 0 : 1);
    }
    snprintf(address, sizeof address, "%d 127.0.0.2 127.0.0.1", port);
    Wire wire = { .fd = wire_connect(address, 1, "it is me") };
    struct sockaddr_in peer = { 0 };
    socklen_t len = sizeof peer;
    CU_ASSERT_EQUAL(getpeername(wire.fd, (struct sockaddr *)&peer, &len), 0);
    CU_ASSERT_EQUAL(peer.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    int status = -1;
    CU_ASSERT(waitpid(child, &status, 0) == child && status == 0);
    wire_close(&wire);
    close(stranger);
    close(listener);
}

static void test_stranger(void)
{
    check_stranger("");
    check_stranger("it is you");
}

/* Elsewhere the loopback is somebody else's: it comes last. */
static void test_addresses(void)
{
    char address[256];
    int listener = wire_listen(false, address, sizeof address);
    CU_ASSERT_FATAL(listener >= 0);
    CU_ASSERT_PTR_NOT_NULL_FATAL(strrchr(address, ' '));
    CU_ASSERT_STRING_EQUAL(strrchr(address, ' '), " 127.0.0.1");
    CU_ASSERT_PTR_EQUAL(strstr(address, "127.0.0.1"), strrchr(address, ' ') + 1);
    close(listener);
}

/* What was put, as a message of `len` of its bytes. */
static WireMessage cut(const Text *text, size_t len)
{
    return (WireMessage){ .kind = 1, .at = (const uint8_t *)text->data, .end = (const uint8_t *)text->data + len };
}

static void test_hello(void)
{
    static const char *const one[] = { "a=1", "a=2" }, *const two[] = { "b=3" };
    static const char *const *const points[] = { one, two };
    static const double costs_one[] = { 1.5, 2.5 }, costs_two[] = { 3 }, *const costs[] = { costs_one, costs_two };
    static const int counts[] = { 2, 1 };
    const MpiHello hello = { .rank = 3, .host = "a host", .target = "x86-64-v3", .digest = "0123", .n_jobs = 2,
                             .key = { .features = "f", .device = "d", .toolchain = "t" }, .points = points,
                             .costs = costs, .n_points = counts };
    MpiHello again;
    Text text = { 0 };
    mpi_put_hello(&text, &hello);
    WireMessage whole = cut(&text, text.len);
    CU_ASSERT_TRUE_FATAL(mpi_read_hello(&whole, arena, &again));
    CU_ASSERT_EQUAL(again.rank, 3);
    CU_ASSERT_STRING_EQUAL(again.key.toolchain, "t");
    CU_ASSERT_STRING_EQUAL(again.points[0][1], "a=2");
    CU_ASSERT_EQUAL(again.costs[1][0], 3);
    for (size_t len = 0; len < text.len; len++) {
        WireMessage part = cut(&text, len);
        CU_ASSERT_FALSE(mpi_read_hello(&part, arena, &again));
    }
    uint64_t random = 5;
    for (int i = 0; i < 20000; i++) {      /* whatever it says: no harm is done */
        Text other = { 0 };
        text_append(&other, text.data, text.len);
        other.data[draw(&random, other.len)] = (char)draw(&random, 256);
        other.data[draw(&random, other.len)] = (char)draw(&random, 256);
        WireMessage changed = cut(&other, other.len);
        ArenaMark mark = arena_mark(arena);
        mpi_read_hello(&changed, arena, &again);
        arena_release(arena, mark);
        text_free(&other);
    }
    text_free(&text);
}

static void test_choices(void)
{
    Text text = { 0 };
    Choices *choices = choices_new(arena);
    choices_set(choices, "key 1", "x", 5);
    choices_set(choices, "key 1", "y", -1);
    choices_set(choices, "key 2", "x", 7);
    mpi_put_choices(&text, choices);
    WireMessage whole = cut(&text, text.len), part = cut(&text, text.len - 1);
    const Choices *again = mpi_read_choices(&whole, arena);
    CU_ASSERT_PTR_NOT_NULL_FATAL(again);
    CU_ASSERT_EQUAL(choices_get(again, "key 1", "y", 0), -1);
    CU_ASSERT_EQUAL(choices_get(again, "key 2", "x", 0), 7);
    CU_ASSERT_PTR_NULL(mpi_read_choices(&part, arena));
    text_free(&text);
}

static bool accepts(const TrialResult *result)
{
    TrialResult again;
    Text text = { 0 };
    wire_put_bytes(&text, result, sizeof *result);
    WireMessage message = cut(&text, text.len);
    bool ok = mpi_read_trial(&message, 2, &again);
    text_free(&text);
    return ok;
}

/* Records have no place for what is no time. */
static void test_results(void)
{
    TrialResult good = { .status = TRIAL_OK, .max_error = 0.5 };
    good.pairs[0] = (TrialPairs){ .candidate = { 1 }, .incumbent = { 2 }, .n = 1 };
    CU_ASSERT_TRUE(accepts(&good));
    TrialResult bad = good;
    bad.pairs[0].candidate[0] = NAN;
    CU_ASSERT_FALSE(accepts(&bad));
    bad.pairs[0].candidate[0] = 0;
    CU_ASSERT_FALSE(accepts(&bad));
    bad = good;
    bad.pairs[0].n = 0;
    CU_ASSERT_FALSE(accepts(&bad));
    bad.status = TRIAL_CRASHED;
    CU_ASSERT_TRUE(accepts(&bad));
    bad.pairs[0].n = DECIDE_MOST_PAIRS + 1;
    CU_ASSERT_FALSE(accepts(&bad));
    bad = good;
    bad.status = (TrialStatus)N_TRIAL_STATUSES;
    CU_ASSERT_FALSE(accepts(&bad));
    bad = good;
    bad.pairs[2] = bad.pairs[0];
    CU_ASSERT_FALSE(accepts(&bad));
    bad = good;
    memset(bad.detail, 'x', sizeof bad.detail);
    CU_ASSERT_TRUE(accepts(&bad));
    StepRequest request = { .n_chunks = 1 };
    StepResult result = { .status = TRIAL_OK };
    result.prefill = result.decode = good.pairs[0];
    for (int n = 1; n <= STEP_MAX_CHUNKS + 1; n += STEP_MAX_CHUNKS) {
        Text text = { 0 };
        request.n_chunks = n;
        mpi_put_whole(&text, &request, &result);
        WireMessage message = cut(&text, text.len);
        StepRequest read_request;
        StepResult read_result;
        CU_ASSERT_EQUAL(mpi_read_whole(&message, &read_request, &read_result), n == 1);
        text_free(&text);
    }
}

/* ---- batches ---- */

/* Time of a point: any, but always the same. The default of one kernel cannot be measured. */
static double time_of(const Job *job, int point)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (const char *c = job->key; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001B3u;
    hash += (uint64_t)(point + 2) * 0x9E3779B97F4A7C15u;
    return 1 + (double)draw(&hash, 1000) / 3000;
}

static TrialResult outcome(const SearchState *s, int point, bool broken)
{
    TrialResult result = { .status = broken ? TRIAL_CRASHED : TRIAL_OK, .max_error = 0.1 };
    for (int i = 0; i < DECIDE_LEAST_PAIRS && !broken; i++) {
        result.pairs[0].candidate[i] = 1e-3 * time_of(s->job, point);
        result.pairs[0].incumbent[i] = 1e-3 * time_of(s->job, s->incumbent);
        result.pairs[0].n = i + 1;
    }
    return result;
}

/* "point / incumbent" of one kernel's trials in their order. */
static const char *tried(const SearchRun *run, const SearchState *s)
{
    Trial *trials;
    int n;
    Text text = { 0 };
    const RecordsFilter filter = { .key = s->key, .search = run->journal.id };
    CU_ASSERT_TRUE(records_list(run->records, arena, run->diags, &filter, &trials, &n));
    for (int i = 0; i < n; i++)
        text_printf(&text, "%s / %s %s\n", trials[i].point, trials[i].incumbent, trial_status_text(trials[i].status));
    const char *copy = arena_strdup(arena, text.data ? text.data : "");
    text_free(&text);
    return copy;
}

enum { MOST_WORKERS = 5 };

/* A search of `n_trials` by workers that answer in any order; some are lost, and come again. `n_lost` counts them. */
static void search(SearchRun *run, const char *db, int n_workers, int n_trials, uint64_t seed, int broken, int *n_lost)
{
    SearchBatch batches[MOST_WORKERS];
    bool busy[MOST_WORKERS] = { false };
    run->diags = diags_new(arena);
    run->arena = arena;
    run->most_trials = n_trials;
    run->records = records_open(arena, run->diags, arena_printf(arena, "%s/%s.db", folder, db), RECORDS_CREATE);
    CU_ASSERT_PTR_NOT_NULL_FATAL(run->records);
    run->journal = (Search){ .command = "test", .model = "m", .device = "d", .features = run->key.features };
    CU_ASSERT_TRUE(records_search_open(run->records, run->diags, &run->journal));
    CU_ASSERT_TRUE_FATAL(search_begin(run, NULL, 0, NULL));
    for (;;) {
        int n_busy = 0;
        for (int w = 0; w < n_workers; w++) {
            while (!busy[w] && search_take(run, &batches[w]))
                if (!(busy[w] = search_advance(run, &batches[w])))
                    search_end_batch(run, &batches[w]);
            n_busy += busy[w];
        }
        if (!n_busy)
            break;
        int w = (int)draw(&seed, (uint64_t)n_workers);
        if (!busy[w])
            continue;
        if (n_lost && draw(&seed, 6) == 0) {
            search_give_back(run, &batches[w]);
            busy[w] = false;
            ++*n_lost;
            continue;
        }
        SearchState *s = batches[w].state;
        const int point = batches[w].points[batches[w].next];
        TrialResult result = outcome(s, point, point < 0 && s - run->states == broken);
        CU_ASSERT_TRUE(search_settle(run, &batches[w], &result));
        if (!(busy[w] = search_advance(run, &batches[w])))
            search_end_batch(run, &batches[w]);
    }
    CU_ASSERT_TRUE(search_end(run, true));
}

static SearchRun run_of_example(void)
{
    const Graph *graph = models_read(arena, UNIT_ROOT "/docs/example.json");
    Module *module = models_build(arena, graph, DTYPE_BF16);
    CU_ASSERT_TRUE_FATAL(passes_run(module, pass_families(TARGET_X86_64_V3), diags_new(arena), NULL, NULL));
    Plan *plan = plan_module(arena, graph, module, TARGET_X86_64_V3);
    return (SearchRun){ .plan = plan, .key = { .features = identity_features(arena, plan->target), .device = "d",
                                               .toolchain = "c" } };
}

/* However many workers, whoever is lost: of each kernel the same points, in the same order, beside the same ones. */
static void test_batches(void)
{
    enum { TRIALS = 50 };
    SearchRun one = run_of_example();
    int n_lost = 0, n_wins = 0;
    search(&one, "one", 1, TRIALS, 1, -1, NULL);
    CU_ASSERT_EQUAL(one.n_trials, TRIALS);
    for (int i = 0; i < one.n_states; i++)
        n_wins += one.states[i].n_wins;
    CU_ASSERT(n_wins > 3);
    for (int round = 0; round < 3; round++) {
        SearchRun many = run_of_example();
        search(&many, arena_printf(arena, "many%d", round), 2 + round, TRIALS, 77 + (uint64_t)round, -1,
               round ? &n_lost : NULL);
        CU_ASSERT_EQUAL(many.n_trials, TRIALS);
        for (int i = 0; i < many.n_states; i++) {
            CU_ASSERT_STRING_EQUAL(tried(&many, &many.states[i]), tried(&one, &one.states[i]));
            CU_ASSERT_EQUAL(many.states[i].incumbent, one.states[i].incumbent);
        }
        records_close(many.records);
    }
    CU_ASSERT(n_lost > 3);
    records_close(one.records);
}

/* Begun by one, gone on with by several, and by one again: nothing is tried twice. */
static void test_going_on(void)
{
    SearchRun first = run_of_example(), then = run_of_example(), last = run_of_example();
    search(&first, "on", 1, 20, 1, -1, NULL);
    records_close(first.records);
    search(&then, "on", 3, 35, 9, -1, NULL);
    CU_ASSERT_EQUAL(then.n_replayed, 20);
    CU_ASSERT_EQUAL(then.n_trials, 35);
    records_close(then.records);
    search(&last, "on", 1, 35, 1, -1, NULL);
    CU_ASSERT_EQUAL(last.n_replayed, 35);
    records_close(last.records);
}

/* A kernel whose default crashes is left, and its share of the trials goes to the others. */
static void test_broken(void)
{
    SearchRun run = run_of_example();
    search(&run, "broken", 3, 30, 3, 0, NULL);
    CU_ASSERT_TRUE(run.states[0].broken);
    CU_ASSERT_EQUAL(run.states[0].n_trials, 1);
    CU_ASSERT_EQUAL(run.n_trials, 30);
    records_close(run.records);
}

static const UnitTest tests[] = { { "wire", test_wire }, { "stranger", test_stranger },
                                  { "addresses", test_addresses }, { "hello", test_hello }, { "choices", test_choices },
                                  { "results", test_results }, { "batches", test_batches },
                                  { "going_on", test_going_on }, { "broken", test_broken } };

int main(void)
{
    strcpy(folder, "/tmp/test_mpi_XXXXXX");
    if (!mkdtemp(folder))
        return 3;
    arena = arena_new();
    int code = unit_main("mpi", tests, sizeof tests / sizeof *tests);
    out_folder_erase(folder);
    arena_free(arena);
    return code;
}
