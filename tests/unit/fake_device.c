/* The stand-in GPU as a device: what it lacks and counts, its memory, and its queue; see fake_gpu.h.
 * One queue serves all streams and runs when anybody waits; memory is poison when it comes and when it goes. */
#include "fake_driver.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { FAKE_MAX_WORK = 4096 };

static fake_gpu device;
static pthread_mutex_t device_lock = PTHREAD_MUTEX_INITIALIZER;
_Thread_local int fake_depth;

fake_gpu *fake_device(void) { return &device; }

void fake_reset(void)
{
    device = (fake_gpu){ .version = 12040, .n_devices = 1, .capability = 90, .shared_most = 227 << 10,
                         .free_len = 1u << 30 };
    fake_program_reset();
}

int fake_enter(const char *name, bool needs_context)
{
    int result = 0;
    pthread_mutex_lock(&device_lock);
    const int call = strcmp(name, "cuCtxPushCurrent_v2") == 0 ? 0 : ++device.n_calls;
    if (device.fails && strcmp(device.fails, name) == 0 && device.fail_after-- <= 0)
        result = device.fail_code;
    if (call && device.fails_at && (call == device.fails_at || (device.stays_broken && call > device.fails_at)))
        result = device.fail_code;
    pthread_mutex_unlock(&device_lock);
    if (needs_context && fake_depth < 1)
        return 201;
    return result;
}

void fake_count(int *counter, int n)
{
    pthread_mutex_lock(&device_lock);
    *counter += n;
    pthread_mutex_unlock(&device_lock);
}

/* ---- memory ---- */

enum { MAX_BLOCKS = 256 };
typedef struct { uint8_t *memory; size_t len; bool pinned; } Memory;
static Memory blocks[MAX_BLOCKS];

int fake_memory_new(void **memory, size_t len, bool pinned)
{
    int result = 2;
    pthread_mutex_lock(&device_lock);
    if (pinned || len <= device.free_len) {
        for (int i = 0; i < MAX_BLOCKS && result; i++)
            if (!blocks[i].memory) {
                blocks[i] = (Memory){ aligned_alloc(256, (len + 255) / 256 * 256), len, pinned };
                memset(blocks[i].memory, 0xCD, len);
                *memory = blocks[i].memory;
                device.free_len -= pinned ? 0 : len;
                device.n_allocs++, device.n_live++;
                result = 0;
            }
    }
    pthread_mutex_unlock(&device_lock);
    return result;
}

int fake_memory_delete(void *memory)
{
    int result = 1;
    pthread_mutex_lock(&device_lock);
    for (int i = 0; i < MAX_BLOCKS; i++)
        if (memory && blocks[i].memory == memory) {
            memset(memory, 0xDD, blocks[i].len);
            free(memory);
            device.free_len += blocks[i].pinned ? 0 : blocks[i].len;
            device.n_live--;
            blocks[i].memory = NULL;
            result = 0;
        }
    pthread_mutex_unlock(&device_lock);
    return result;
}

bool fake_memory_has(const void *memory, size_t len, bool pinned)
{
    bool has = false;
    const uint8_t *at = memory;
    pthread_mutex_lock(&device_lock);
    for (int i = 0; i < MAX_BLOCKS; i++)
        has |= blocks[i].memory && blocks[i].pinned == pinned && at >= blocks[i].memory
            && at + len <= blocks[i].memory + blocks[i].len;
    pthread_mutex_unlock(&device_lock);
    return has;
}

/* ---- the queue: one for all streams, run when anybody waits ---- */

static FakeWork queue[FAKE_MAX_WORK];
static int queue_len;

void fake_queue_run(void)
{
    static FakeWork running[FAKE_MAX_WORK];
    static pthread_mutex_t run_lock = PTHREAD_MUTEX_INITIALIZER;    /* held while work runs: it may look at memory */
    pthread_mutex_lock(&run_lock);
    pthread_mutex_lock(&device_lock);
    const int n = queue_len;
    memcpy(running, queue, (size_t)n * sizeof *queue);
    queue_len = 0;
    pthread_mutex_unlock(&device_lock);
    for (int i = 0; i < n; i++) {
        const FakeWork *work = &running[i];
        if (work->from)
            memcpy(work->to, work->from, work->len);
        else if (work->to)
            memset(work->to, work->value, work->len);
        else
            fake_kernel_run(&work->kernel);
        free(work->staged);
    }
    pthread_mutex_unlock(&run_lock);
}

void fake_queue_add(const FakeWork *work)
{
    pthread_mutex_lock(&device_lock);
    const bool full = queue_len == FAKE_MAX_WORK;
    pthread_mutex_unlock(&device_lock);
    if (full)
        fake_queue_run();
    pthread_mutex_lock(&device_lock);
    queue[queue_len++] = *work;
    pthread_mutex_unlock(&device_lock);
}
