/* The stand-in driver's memory: allocations on the device, pinned memory, copies.
 *
 * An allocation starts at a multiple of 256, ends less than 256 bytes before a page that is no memory,
 * and holds NaNs. Copies from and to pinned memory happen when their stream runs; what is not pinned
 * is copied before the call returns, as the driver does.
 */
#include "fake_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct Allocation {
    struct Allocation *next;
    char *at, *mapped;
    size_t len, mapped_len;
    bool is_pinned;
} Allocation;

enum { PAGE = 4096, ALIGNMENT = 256, NAN_BYTE = 0xFF, SLACK = 0xA5 };

static Allocation *allocations;
static int n_allocated[2];            /* calls so far: device, pinned */
static size_t device_len;

static int allocate(bool is_pinned, char **at, size_t len)
{
    if (len == 0)
        return fake_misuse(FAKE_INVALID_VALUE, "an allocation of no bytes");
    if (++n_allocated[is_pinned] == fake_fault(is_pinned ? "no-pinned" : "no-memory"))
        return FAKE_OUT_OF_MEMORY;
    if (!is_pinned && len > fake_memory_free())
        return FAKE_OUT_OF_MEMORY;
    const size_t whole = (len + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, pages = (whole + PAGE - 1) / PAGE * PAGE;
    Allocation *new = malloc(sizeof *new);
    char *mapped = mmap(NULL, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!new || mapped == MAP_FAILED || mprotect(mapped + pages, PAGE, PROT_NONE) != 0)
        return FAKE_OUT_OF_MEMORY;
    *new = (Allocation){ allocations, mapped + pages - whole, mapped, len, pages + PAGE, is_pinned };
    memset(mapped, SLACK, pages);
    memset(new->at, NAN_BYTE, len);
    allocations = new;
    device_len += is_pinned ? 0 : len;
    *at = new->at;
    return FAKE_OK;
}

static bool is_slack(const char *p, const char *end)
{
    for (; p < end; p++)
        if ((unsigned char)*p != SLACK)
            return false;
    return true;
}

static int release(bool is_pinned, const void *at)
{
    const int result = fake_wait_all();
    for (Allocation **link = &allocations; *link; link = &(*link)->next) {
        Allocation *old = *link;
        if (old->at != at || old->is_pinned != is_pinned)
            continue;
        const char *end = old->mapped + old->mapped_len - PAGE;
        if (!is_slack(old->mapped, old->at) || !is_slack(old->at + old->len, end)) {
            fake_misuse(FAKE_INVALID_VALUE, "something was written around an allocation of %zu bytes", old->len);
            abort();
        }
        *link = old->next;
        device_len -= is_pinned ? 0 : old->len;
        munmap(old->mapped, old->mapped_len);
        free(old);
        return result;
    }
    return fake_misuse(FAKE_INVALID_VALUE, "%p was not allocated, or is free already", at);
}

static bool is_in(bool is_pinned, const char *at, size_t len)
{
    for (const Allocation *of = allocations; of; of = of->next)
        if (of->is_pinned == is_pinned && at >= of->at && at <= of->at + of->len
            && len <= (size_t)(of->at + of->len - at))
            return true;
    return false;
}

bool fake_is_device(uint64_t at, size_t len) { return is_in(false, (const char *)(uintptr_t)at, len); }
bool fake_is_pinned(const void *at, size_t len) { return is_in(true, at, len); }

size_t fake_memory_free(void)
{
    return (size_t)fake_setting("MOSS_FAKE_CUDA_MEMORY", 16L << 30) - device_len;
}

int fake_n_allocations(void)
{
    int n = 0;
    for (const Allocation *of = allocations; of; of = of->next)
        n++;
    return n;
}

/* ---- the calls ---- */

CUDA_API cuMemGetInfo_v2(size_t *free_len, size_t *total)
{
    const int result = fake_enter();
    *free_len = fake_memory_free();
    *total = (size_t)fake_setting("MOSS_FAKE_CUDA_MEMORY", 16L << 30);
    fake_leave();
    return result;
}

CUDA_API cuMemAlloc_v2(uint64_t *memory, size_t len)
{
    char *at = NULL;
    int result = fake_enter();
    if (!result && !(result = allocate(false, &at, len)))
        *memory = (uint64_t)(uintptr_t)at;
    fake_leave();
    return result;
}

CUDA_API cuMemFree_v2(uint64_t memory)
{
    int result = fake_enter();
    if (memory && (!result || fake_is_lost()))
        result = release(false, (const void *)(uintptr_t)memory);
    fake_leave();
    return result;
}

CUDA_API cuMemHostAlloc(void **memory, size_t len, unsigned flags)
{
    char *at = NULL;
    (void)flags;
    int result = fake_enter();
    if (!result && !(result = allocate(true, &at, len)))
        *memory = at;
    fake_leave();
    return result;
}

CUDA_API cuMemFreeHost(void *memory)
{
    int result = fake_enter();
    if (!result || fake_is_lost())
        result = release(true, memory);
    fake_leave();
    return result;
}

/* One of both ends is on the device; the other is pinned, or the copy is over when this returns. */
static int copy(uint64_t device, bool to_device, void *to, const void *from, size_t len, FakeStream *stream, bool wait)
{
    int result = fake_enter();
    if (!result && !fake_is_device(device, len))
        result = fake_misuse(FAKE_INVALID_VALUE, "a copy of %zu bytes beyond an allocation of the device", len);
    if (!result)
        result = fake_queue_copy(stream, to, from, len);
    if (!result && (wait || !fake_is_pinned(to_device ? from : to, len)))
        result = stream ? fake_wait_stream(stream) : fake_wait_all();
    fake_leave();
    return result;
}

CUDA_API cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t len, FakeStream *stream)
{
    return copy(to, true, (void *)(uintptr_t)to, from, len, stream, false);
}

CUDA_API cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t len, FakeStream *stream)
{
    return copy(from, false, to, (const void *)(uintptr_t)from, len, stream, false);
}

CUDA_API cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t len)
{
    return copy(to, true, (void *)(uintptr_t)to, from, len, NULL, true);
}

CUDA_API cuMemcpyDtoH_v2(void *to, uint64_t from, size_t len)
{
    return copy(from, false, to, (const void *)(uintptr_t)from, len, NULL, true);
}

CUDA_API cuMemsetD8Async(uint64_t to, unsigned char value, size_t len, FakeStream *stream)
{
    int result = fake_enter();
    if (!result && !fake_is_device(to, len))
        result = fake_misuse(FAKE_INVALID_VALUE, "%zu bytes set beyond an allocation of the device", len);
    if (!result)
        result = fake_queue_set(stream, (void *)(uintptr_t)to, value, len);
    fake_leave();
    return result;
}
