/* GPU artifacts that are opened, over a stand-in driver and program (fake_gpu.h).
 *
 * Checks that each way a machine cannot run the program is told in words, before anything is allocated where that can
 * be, that weights arrive whole or are refused, and that everything made is given back.
 */
#include "gpu_fixture.h"
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const char *name;
    void (*damage)(fake_gpu *device);
    int32_t status;
    const char *words[3];
    bool before_memory;        /* told before anything is allocated */
} DeviceCase;

static void leave_good(fake_gpu *device) { (void)device; }
static void no_library(fake_gpu *device) { device->no_library = true; }
static void old_driver(fake_gpu *device) { device->version = 11080; }
static void no_version(fake_gpu *device) { device->lacks = "cuDriverGetVersion"; }
static void no_launch(fake_gpu *device) { device->lacks = "cuLaunchKernelEx"; }
static void no_maps(fake_gpu *device) { device->lacks = "cuTensorMapEncodeTiled"; }
static void maps_not_needed(fake_gpu *device)
{
    device->lacks = "cuTensorMapEncodeTiled";
    fake_tables()->n_tensor_maps = 0;
    fake_tables()->prefill.begin++, fake_tables()->decode.begin++;   /* their kernel has one */
}
static void no_device(fake_gpu *device) { device->n_devices = 0; }
static void init_fails(fake_gpu *device) { device->fails = "cuInit", device->fail_code = MOSS_CU_ERROR_NO_DEVICE; }
static void init_breaks(fake_gpu *device) { device->fails = "cuInit", device->fail_code = 999; }
static void older_device(fake_gpu *device) { device->capability = 80; }
static void newer_device(fake_gpu *device) { device->capability = 100; }
static void much_older_device(fake_gpu *device) { device->capability = 75, fake_tables()->sm = 80; }
static void a100_on_newer(fake_gpu *device) { device->capability = 100, fake_tables()->sm = 80; }
static void ptx_refused(fake_gpu *device) { device->ptx_log = "line 7; error : Unknown symbol 'mma'\nptxas fatal"; }
static void too_small(fake_gpu *device) { device->free_len = 9 << 20; }
static void no_kernel(fake_gpu *device)
{
    static const char *const names[] = { "clear", "fold", "logits", "argmin" };
    (void)device;
    fake_tables()->kernels = names;
}
static void little_shared(fake_gpu *device) { device->shared_most = 48 << 10; }
static void fail(fake_gpu *device, const char *symbol, int code, int after)
{
    device->fails = symbol, device->fail_code = code, device->fail_after = after;
}
static void copy_fails(fake_gpu *device) { fail(device, "cuMemcpyHtoDAsync_v2", 719, 0); }
static void stream_fails(fake_gpu *device) { fail(device, "cuStreamCreate", 2, 3); }
static void pinned_fails(fake_gpu *device) { fail(device, "cuMemHostAlloc", 2, 1); }
static void scratch_fails(fake_gpu *device) { fail(device, "cuMemAlloc_v2", 2, 1); }
static void states_fail(fake_gpu *device) { fail(device, "cuMemAlloc_v2", 2, 2); }

static const DeviceCase device_cases[] = {
    { "good", leave_good, MOSS_OK, { NULL }, false },
    { "no library", no_library, MOSS_ERROR_DEVICE,
      { "no GPU driver (libcuda.so.1: cannot", "h100", "CUDA 12.0 or later" }, true },
    { "old driver", old_driver, MOSS_ERROR_DEVICE, { "driver is for CUDA 11.8", "needs", "CUDA 12.0 or later" }, true },
    { "foreign library", no_version, MOSS_ERROR_DEVICE, { "cuDriverGetVersion", "12.0 or later" }, true },
    { "symbol missing", no_launch, MOSS_ERROR_DEVICE, { "lacks cuLaunchKernelEx" }, true },
    { "maps missing", no_maps, MOSS_ERROR_DEVICE, { "lacks cuTensorMapEncodeTiled" }, true },
    { "maps not needed", maps_not_needed, MOSS_OK, { NULL }, false },
    { "no device", no_device, MOSS_ERROR_DEVICE, { "no GPU", "CUDA 12.4 finds none", "h100" }, true },
    { "no device at init", init_fails, MOSS_ERROR_DEVICE, { "no GPU" }, true },
    { "init breaks", init_breaks, MOSS_ERROR_DEVICE, { "driver does not start", "(999)" }, true },
    { "older device", older_device, MOSS_ERROR_DEVICE,
      { "Fake 40 has compute capability 8.0", "h100", "needs 9.0" }, true },
    { "newer device", newer_device, MOSS_ERROR_DEVICE, { "capability 10.0", "needs 9.0" }, true },
    { "sm_80 too old", much_older_device, MOSS_ERROR_DEVICE, { "capability 7.5", "needs 8.0 or later" }, true },
    { "sm_80 on newer", a100_on_newer, MOSS_OK, { NULL }, false },
    { "PTX refused", ptx_refused, MOSS_ERROR_DEVICE,
      { "CUDA 12.4 refuses this program's PTX: CUDA_ERROR_INVALID_PTX (218)",
        "Unknown symbol 'mma' ptxas fatal" }, false },
    { "little memory", too_small, MOSS_ERROR_DEVICE,
      { "Fake 40 has 9.44 MB of 2147.48 free; needed 9.", "weights 9.44, scratch 0.09", "5 states of 0.00" }, true },
    { "no kernel", no_kernel, MOSS_ERROR_DEVICE, { "kernel argmin", "(500)" }, false },
    { "little shared memory", little_shared, MOSS_ERROR_DEVICE,
      { "kernel fold needs 60000 bytes of shared memory, Fake 40 has 49152" }, false },
    { "upload fails", copy_fails, MOSS_ERROR_DEVICE,
      { "cannot copy the weights to the GPU: CUDA_ERROR_LAUNCH_FAILED (719): unspecified" }, false },
    { "upload without streams", stream_fails, MOSS_ERROR_DEVICE, { "OUT_OF_MEMORY" }, false },
    { "no pinned memory", pinned_fails, MOSS_ERROR_DEVICE, { "queue", "CUDA_ERROR_OUT_OF_MEMORY" }, false },
    { "no scratch", scratch_fails, MOSS_ERROR_DEVICE, { "bytes of GPU memory for scratch, ", "OUT_OF_MEMORY" }, false },
    { "no states", states_fail, MOSS_ERROR_DEVICE, { "bytes of GPU memory for states, " }, false },
};

static void test_what_is_missing_is_told(void)
{
    for (size_t i = 0; i < sizeof device_cases / sizeof *device_cases; i++) {
        const DeviceCase *test = &device_cases[i];
        Fixture fixture;
        fake_reset();
        test->damage(fake_device());
        const int status = fixture_open(&fixture, N_STATES, 0);
        if (status != test->status)
            printf("%s: status %d, '%s'\n", test->name, status, fixture.error.message);
        CU_ASSERT_EQUAL(status, test->status);
        for (int w = 0; w < 3 && test->words[w]; w++)
            CU_ASSERT(words_in(&fixture.error, test->words[w]));
        if (test->before_memory)
            CU_ASSERT_EQUAL(fake_device()->n_allocs, 0);
        fixture_close(&fixture);
    }
    fake_reset();
}

/* Memory of many long states is asked for before anything is allocated; sums that overflow are too much. */
static void test_memory_of_states(void)
{
    Fixture fixture;
    fake_reset();
    fake_full_attention(true);
    CU_ASSERT_EQUAL(fixture_open(&fixture, 16, 8 << 20), MOSS_ERROR_DEVICE);
    CU_ASSERT(words_in(&fixture.error, "16 states of 67.11"));
    CU_ASSERT_EQUAL(fake_device()->n_allocs, 0);
    fixture_close(&fixture);
    CU_ASSERT_EQUAL(fixture_open(&fixture, 4096, INT64_MAX / 32), MOSS_ERROR_DEVICE);
    fixture_close(&fixture);
    CU_ASSERT_EQUAL(fixture_open(&fixture, 4097, 1), MOSS_ERROR_ARGUMENT);
    fixture_close(&fixture);
    CU_ASSERT_EQUAL(fixture_open(&fixture, 0, 1), MOSS_ERROR_ARGUMENT);
    fixture_close(&fixture);
    fake_full_attention(false);
}

static void test_damaged_weights(void)
{
    Fixture fixture;
    fake_reset();
    uint8_t *last = fake_weights() + FAKE_FILE_LEN - 1;
    *last ^= 1;
    CU_ASSERT_EQUAL(fixture_open(&fixture, 1, 0), MOSS_ERROR_WEIGHTS);
    CU_ASSERT(words_in(&fixture.error, "corrupt"));
    fixture_close(&fixture);
    fixture.model = block_new(moss_model_len());
    CU_ASSERT_EQUAL(moss_model_open(fixture.model, NULL, 0, NULL), MOSS_OK);    /* not verified */
    moss_model_close(fixture.model);
    *last ^= 1;
    CU_ASSERT_EQUAL(fake_device()->n_live, 0);
    free(fixture.model);
}

static void test_weights_arrive(void)
{
    Fixture fixture;
    char path[] = "/tmp/moss-gpu-XXXXXX";
    fake_reset();
    const int fd = mkstemp(path);
    CU_ASSERT_EQUAL_FATAL(write(fd, fake_weights(), FAKE_FILE_LEN), FAKE_FILE_LEN);
    close(fd);
    fixture.model = block_new(moss_model_len());
    CU_ASSERT_EQUAL_FATAL(moss_model_open(fixture.model, path, 1, &fixture.error), MOSS_OK);
    const moss_gpu_model *model = moss_gpu_of(fixture.model);
    CU_ASSERT_STRING_EQUAL(moss_model_device(fixture.model), "Fake 40");
    CU_ASSERT_EQUAL(memcmp((const void *)(uintptr_t)model->weights, fake_weights() + MOSS_WEIGHTS_HEADER_LEN,
                           FAKE_DATA_LEN), 0);
    CU_ASSERT_PTR_NULL(model->base.weights.map);       /* the host keeps no copy */
    moss_model_close(fixture.model);
    free(fixture.model);
    unlink(path);
    CU_ASSERT_EQUAL(fake_device()->n_live, 0);
}

static const UnitTest tests[] = {
    { "what a machine lacks is told", test_what_is_missing_is_told },
    { "memory of states is asked for first", test_memory_of_states },
    { "damaged weights", test_damaged_weights },
    { "weights arrive whole", test_weights_arrive },
};

UNIT_MAIN("gpu open", tests)
