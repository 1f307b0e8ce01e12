/* ring_write: whole states byte by byte, so that what must stay is seen to stay. */
#include "check_sequences.h"

enum { N_SLOTS = 18 };

static void check_ring_write(void)
{
    const int columns = check_param("n_columns"), stride = check_param("kv_stride"), window = check_param("window");
    const int new_stride = check_param("new_stride");
    const int act = check_param("act"), sequences = check_param("sequences"), n_tokens = check_param("n_tokens");
    const int first = check_param("first");
    const CheckSequences of = check_sequences(n_tokens, sequences);
    const int n_sequences = of.n;
    const int64_t n_context = check_param("n_context"), rows = window ? window : n_context;
    const size_t ring_len = sizeof(uint16_t) * (size_t)rows * (size_t)stride;
    const int64_t state_stride = (int64_t)(2 * ring_len + 256) / 256 * 256, v_at = (int64_t)ring_len;

    const uint16_t *k = check_random_act(n_tokens, columns, new_stride, act);
    const uint16_t *v = check_random_act(n_tokens, columns, new_stride, act);
    int64_t *positions = check_buffer(sizeof(int64_t) * (size_t)n_sequences);
    int32_t *slots = check_buffer(sizeof(int32_t) * (size_t)n_sequences);
    char *states = check_buffer((size_t)state_stride * N_SLOTS), *want = check_buffer((size_t)state_stride * N_SLOTS);
    memset(states, 0x5A, (size_t)state_stride * N_SLOTS);
    memset(want, 0x5A, (size_t)state_stride * N_SLOTS);
    for (int i = 0; i < n_sequences; i++) {
        positions[i] = i ? check_random_below(first + 1) : first;
        slots[i] = (7 * i + 3) % N_SLOTS;
    }
    check_freeze(positions);
    check_freeze(slots);
    for (int t = 0, i = 0; t < n_tokens; t++) {
        i += t == check_begin(of, i) + check_len(of, i);
        const int64_t position = positions[i] + t - check_begin(of, i);
        char *state = want + state_stride * slots[i] + position % rows * stride * 2;
        memcpy(state, k + t * new_stride, 2 * (size_t)columns);
        memcpy(state + v_at, v + t * new_stride, 2 * (size_t)columns);
    }
    uint16_t *ring_k = (uint16_t *)states, *ring_v = (uint16_t *)(states + v_at);
    CHECK_LAUNCH(n_tokens / 8 + 2, 1, check_param("threads"), 0, ring_k, ring_v, k, v, positions, slots, of.ends,
                 state_stride, n_context, of.n, n_tokens);
    check_bytes("states", states, want, (size_t)state_stride * N_SLOTS);
}

GPU_CHECKS({ "ring_write", check_ring_write })
