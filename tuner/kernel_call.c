/* Kernel call: dlopen, the manifest's types, ffi_call. */
#include "kernel_call.h"

#include "../codegen/kernel_file.h"

#include <cjson/cJSON.h>
#include <dlfcn.h>
#include <ffi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ARGS = 16, MAX_COPIES = 64 };

struct KernelCall {
    void *handle;
    cJSON *manifest;
    void (*function)(void);
    ffi_cif cif;
    ffi_type *types[MAX_ARGS];
    int n_args;
    WorkValue values[MAX_COPIES][MAX_ARGS];
    void *pointers[MAX_COPIES][MAX_ARGS];
};

static ffi_type *type_named(const char *name)
{
    static const struct { const char *name; ffi_type *type; } types[] = {
        { "pointer", &ffi_type_pointer }, { "i32", &ffi_type_sint32 }, { "i64", &ffi_type_sint64 },
    };
    for (size_t i = 0; name && i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].type;
    return NULL;
}

static const char *text_of(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static void *symbol(KernelCall *call, const char *name, const char *suffix)
{
    char full[64];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    return dlsym(call->handle, full);
}

static bool prepare(KernelCall *call, const char *suffix, char *why, size_t why_len)
{
    const char *text = symbol(call, KERNEL_FILE_MANIFEST, suffix);
    call->manifest = text ? cJSON_Parse(text) : NULL;
    const cJSON *arguments = cJSON_GetObjectItemCaseSensitive(call->manifest, "arguments"), *argument;
    const char *name = text_of(call->manifest, "symbol"), *format = text_of(call->manifest, "format");
    void (**function)(void) = name ? symbol(call, name, suffix) : NULL;
    if (!function || !arguments || !format || strcmp(format, "mossc-kernel/1") != 0)
        return snprintf(why, why_len, "its manifest cannot be read"), false;
    call->function = *function;
    cJSON_ArrayForEach(argument, arguments) {
        ffi_type *type = type_named(text_of(argument, "type"));
        if (!type || call->n_args == MAX_ARGS)
            return snprintf(why, why_len, "its manifest has an argument of an unknown type"), false;
        call->types[call->n_args++] = type;
    }
    if (ffi_prep_cif(&call->cif, FFI_DEFAULT_ABI, (unsigned)call->n_args, &ffi_type_void, call->types) == FFI_OK)
        return true;
    return snprintf(why, why_len, "libffi does not take its manifest"), false;
}

KernelCall *kernel_load(const char *path, const char *suffix, char *why, size_t why_len)
{
    KernelCall *call = calloc(1, sizeof *call);
    if (call)
        call->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!call || !call->handle)
        snprintf(why, why_len, "%s", call ? dlerror() : "no memory");
    else if (prepare(call, suffix, why, why_len))
        return call;
    kernel_free(call);
    return NULL;
}

bool kernel_bind(KernelCall *call, const Work *work, char *why, size_t why_len)
{
    const cJSON *arguments = cJSON_GetObjectItemCaseSensitive(call->manifest, "arguments"), *argument;
    for (int copy = 0; copy < work_copies(work); copy++) {
        int i = 0;
        cJSON_ArrayForEach(argument, arguments) {
            const char *name = text_of(argument, "name");
            if (!name || !work_argument(work, name, copy, &call->values[copy][i]))
                return snprintf(why, why_len, "no value for its argument %s", name ? name : "without a name"), false;
            call->pointers[copy][i] = &call->values[copy][i];
            i++;
        }
    }
    return true;
}

void kernel_run(KernelCall *call, int copy) { ffi_call(&call->cif, call->function, NULL, call->pointers[copy]); }

void kernel_free(KernelCall *call)
{
    if (call && call->handle)
        dlclose(call->handle);
    if (call)
        cJSON_Delete(call->manifest);
    free(call);
}
