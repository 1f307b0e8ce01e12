/* Library: manifest to ffi_call. It is never unloaded: its threads may still be ending. */
#include "library.h"

#include <cjson/cJSON.h>
#include <dlfcn.h>
#include <ffi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ARGS = 16 };

struct Library { void *handle; cJSON *manifest; };

static const char *text_of(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

Library *library_load(const char *path, char *why, size_t why_len)
{
    Library *library = calloc(1, sizeof *library);
    if (library)
        library->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library || !library->handle)
        return snprintf(why, why_len, "%s", library ? dlerror() : "no memory"), NULL;
    const char *(*manifest)(void) = (const char *(*)(void))dlsym(library->handle, "moss_manifest");
    library->manifest = manifest ? cJSON_Parse(manifest()) : NULL;
    if (!library->manifest)
        return snprintf(why, why_len, "its manifest cannot be read"), NULL;
    return library;
}

static ffi_type *type_named(const char *name)
{
    static const struct { const char *name; ffi_type *type; } types[] = {
        { "i32", &ffi_type_sint32 }, { "i64", &ffi_type_sint64 }, { "u64", &ffi_type_uint64 }, { "str",
            &ffi_type_pointer },
        { "pointer", &ffi_type_pointer }, { "size", sizeof(size_t) == 8 ? &ffi_type_uint64 : &ffi_type_uint32 },
        { "void", &ffi_type_void },
    };
    for (size_t i = 0; name && i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].type;
    return NULL;
}

static const cJSON *find_function(const Library *library, const char *name)
{
    const cJSON *functions = cJSON_GetObjectItemCaseSensitive(library->manifest, "functions"), *function;
    cJSON_ArrayForEach(function, functions) {
        const char *full = text_of(function, "name");
        if (full && strncmp(full, "moss_", 5) == 0 && strcmp(full + 5, name) == 0)
            return function;
    }
    return NULL;
}

int64_t library_call(Library *library, const char *name, const LibraryValue *arguments, int n, bool *ok)
{
    const cJSON *function = find_function(library, name), *argument;
    void (*address)(void) = function ? (void (*)(void))dlsym(library->handle, text_of(function, "name")) : NULL;
    ffi_type *types[MAX_ARGS], *result = function ? type_named(text_of(function, "result")) : NULL;
    void *values[MAX_ARGS];
    int n_types = 0;
    cJSON_ArrayForEach(argument, cJSON_GetObjectItemCaseSensitive(function, "arguments")) {
        if (n_types < MAX_ARGS && n_types < n) {
            types[n_types] = type_named(text_of(argument, "type"));
            values[n_types] = (void *)&arguments[n_types];
            result = types[n_types] ? result : NULL;
        }
        n_types++;
    }
    ffi_cif cif;
    union { ffi_arg word; int64_t i64; } value = { 0 };
    *ok = address && result && n_types == n && ffi_prep_cif(&cif, FFI_DEFAULT_ABI, (unsigned)n, result,
                                                            types) == FFI_OK;
    if (!*ok)
        return 0;
    ffi_call(&cif, address, &value, values);
    return result == &ffi_type_sint32 ? (int32_t)value.word : value.i64;
}
