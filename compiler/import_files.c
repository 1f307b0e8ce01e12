/* The files of a Hugging Face folder.
 *
 * Input: a folder. Output: the tensors of all its shards in one sorted list, and their bytes.
 * Invariant: headers are parsed from a map that is gone again before any data is read; data comes
 * through pread into the caller's buffer, so that memory stays small and a file that shrinks
 * meanwhile is an error instead of a signal. A shard's name never leaves the folder.
 */
#include "import_files.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_SHARDS = 1000 };

static bool refuse_read(Diags *diags, const char *path, const char *why)
{
    diag_report(diags, DIAG_FILE_READ, &(Place){ .file = path }, "cannot read it: %s", why);
    return false;
}

/* --- one file --- */

typedef struct { int fd; unsigned char *bytes; size_t len; } Map;

static void unmap(const Map *map)
{
    if (map->len)
        munmap(map->bytes, map->len);
}

/* The whole file, read-only; the descriptor is the caller's to close. */
static bool map_file(Diags *diags, const char *path, Map *map)
{
    struct stat info;
    *map = (Map){ .fd = open(path, O_RDONLY | O_CLOEXEC) };
    if (map->fd < 0)
        return refuse_read(diags, path, strerror(errno));
    bool good = fstat(map->fd, &info) == 0;
    if (good && !S_ISREG(info.st_mode)) {
        errno = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
        good = false;
    }
    if (good && info.st_size > 0) {
        map->bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, map->fd, 0);
        good = map->bytes != MAP_FAILED;
        map->len = good ? (size_t)info.st_size : 0;
    }
    if (good)
        return true;
    refuse_read(diags, path, strerror(errno));
    close(map->fd);
    return false;
}

Json *import_read_json(Arena *arena, Diags *diags, const char *path)
{
    Map map;
    if (!map_file(diags, arena_strdup(arena, path), &map))
        return NULL;
    Json *json = json_parse(arena, diags, path, (const char *)map.bytes, map.len, JSON_MAX_BYTES);
    unmap(&map);
    close(map.fd);
    return json;
}

/* --- shards --- */

typedef struct {
    Arena *arena;
    Diags *diags;
    const char *folder;
    ImportFiles *out;
    Safetensors headers[MAX_SHARDS];
} Opening;

static bool shard_open(Opening *o, const char *name)
{
    const char *path = arena_printf(o->arena, "%s/%s", o->folder, name);
    Map map;
    if (!map_file(o->diags, path, &map))
        return false;
    int i = o->out->n_shards++;
    bool good = safetensors_read(o->arena, o->diags, path, map.bytes, map.len, &o->headers[i]);
    o->out->shards[i] = (ImportShard){ path, map.fd, good ? o->headers[i].data - map.bytes : 0 };
    o->headers[i].data = NULL;      /* it pointed into the map */
    unmap(&map);
    return good;
}

static int compare_sources(const void *a, const void *b)
{
    const ImportSource *left = a, *right = b;
    int order = strcmp(left->entry->name, right->entry->name);
    return order ? order : (left->shard > right->shard) - (left->shard < right->shard);
}

/* All tensors in one list; none may be in two shards. */
static bool sources_join(Opening *o)
{
    ImportFiles *out = o->out;
    size_t n = 0;
    bool good = true;
    for (int i = 0; i < out->n_shards; i++)
        n += (size_t)o->headers[i].n_entries;
    out->sources = arena_array(o->arena, ImportSource, n);
    for (int i = 0; i < out->n_shards; i++)
        for (int j = 0; j < o->headers[i].n_entries; j++)
            out->sources[out->n_sources++] = (ImportSource){ &o->headers[i].entries[j], i, false };
    qsort(out->sources, n, sizeof *out->sources, compare_sources);
    for (size_t i = 1; i < n && !diags_full(o->diags); i++) {
        const ImportSource *source = &out->sources[i];
        if (strcmp(source[-1].entry->name, source->entry->name) != 0)
            continue;
        diag_report(o->diags, DIAG_WEIGHTS_EXTRA, &(Place){ .file = import_source_path(out, source) },
                    "%s is in %s already", source->entry->name, import_source_path(out, source - 1));
        good = false;
    }
    return good;
}

/* --- the index --- */

static bool index_refuse(Opening *o, const Json *json, const JsonValue *value, const char *words)
{
    Place at = json_place(json, value, false);
    diag_report(o->diags, DIAG_WEIGHTS_FORMAT, &at, "%s", words);
    return false;
}

static int shard_of(const Opening *o, const char *name)
{
    size_t folder_len = strlen(o->folder) + 1;
    for (int i = 0; i < o->out->n_shards; i++)
        if (strcmp(o->out->shards[i].path + folder_len, name) == 0)
            return i;
    return -1;
}

static bool index_shards_open(Opening *o, const Json *json, const JsonValue *map)
{
    for (const cJSON *item = map->child; item; item = item->next) {
        if (!cJSON_IsString(item) || !*item->valuestring || strchr(item->valuestring, '/'))
            return index_refuse(o, json, item, "expected the name of a file of this folder");
        if (shard_of(o, item->valuestring) >= 0)
            continue;
        if (o->out->n_shards == MAX_SHARDS)
            return index_refuse(o, json, item, "more than 1000 files");
        if (!shard_open(o, item->valuestring))
            return false;
    }
    return true;
}

/* What the index says against what the shards hold. */
static bool index_check(Opening *o, const Json *json, const JsonValue *map)
{
    bool good = true;
    for (const cJSON *item = map->child; item && !diags_full(o->diags); item = item->next) {
        const ImportSource *source = import_files_find(o->out, item->string);
        if (source && source->shard == shard_of(o, item->valuestring))
            continue;
        Place at = json_place(json, item, true);
        diag_report(o->diags, DIAG_WEIGHTS_MISSING, &at, "%s is not in %s", item->string, item->valuestring);
        good = false;
    }
    for (int i = 0; i < o->out->n_sources && !diags_full(o->diags); i++) {
        const ImportSource *source = &o->out->sources[i];
        if (cJSON_GetObjectItemCaseSensitive(map, source->entry->name))
            continue;
        diag_report(o->diags, DIAG_WEIGHTS_EXTRA, &(Place){ .file = import_source_path(o->out, source) },
                    "%s is not in the index", source->entry->name);
        good = false;
    }
    return good;
}

static bool index_open(Opening *o, const char *path)
{
    Json *json = import_read_json(o->arena, o->diags, path);
    if (!json)
        return false;
    const JsonValue *map = cJSON_GetObjectItemCaseSensitive(json_root(json), "weight_map");
    bool good = cJSON_IsObject(map) || index_refuse(o, json, json_root(json), "expected an object with a \"weight_map\"");
    good = good && index_shards_open(o, json, map) && sources_join(o) && index_check(o, json, map);
    json_free(json);
    return good;
}

/* --- opening --- */

static bool missing_report(Opening *o, const char *whole)
{
    const char *pickle = arena_printf(o->arena, "%s/pytorch_model.bin", o->folder);
    diag_report(o->diags, DIAG_FILE_READ, &(Place){ .file = whole },
                "there is neither this file nor model.safetensors.index.json");
    if (access(pickle, F_OK) == 0 || access(arena_printf(o->arena, "%s.index.json", pickle), F_OK) == 0)
        diag_note(o->diags, NULL, "pytorch_model.bin is not read: it is a program; convert it with save_pretrained, "
                  "which writes safetensors");
    return false;
}

static bool open_any(Opening *o)
{
    const char *whole = arena_printf(o->arena, "%s/model.safetensors", o->folder);
    const char *index = arena_printf(o->arena, "%s.index.json", whole);
    if (access(whole, F_OK) == 0)
        return shard_open(o, "model.safetensors") && sources_join(o);
    return access(index, F_OK) == 0 ? index_open(o, index) : missing_report(o, whole);
}

bool import_files_open(Arena *arena, Diags *diags, const char *folder, ImportFiles *out)
{
    *out = (ImportFiles){ .shards = arena_array(arena, ImportShard, MAX_SHARDS) };
    Opening *o = arena_one(arena, Opening);
    o->arena = arena;
    o->diags = diags;
    o->folder = folder;
    o->out = out;
    if (open_any(o))
        return true;
    import_files_close(out);
    return false;
}

void import_files_close(ImportFiles *files)
{
    for (int i = 0; i < files->n_shards; i++)
        close(files->shards[i].fd);
    files->n_shards = 0;
}

/* --- reading --- */

ImportSource *import_files_find(const ImportFiles *files, const char *name)
{
    int low = 0, high = files->n_sources;
    while (low < high) {
        int middle = low + (high - low) / 2;
        int order = strcmp(files->sources[middle].entry->name, name);
        if (order == 0)
            return &files->sources[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const char *import_source_path(const ImportFiles *files, const ImportSource *source)
{
    return files->shards[source->shard].path;
}

bool import_files_read(const ImportFiles *files, Diags *diags, int shard, int64_t begin, int64_t len, void *out)
{
    const ImportShard *from = &files->shards[shard];
    for (int64_t done = 0; done < len;) {
        ssize_t n = pread(from->fd, (char *)out + done, (size_t)(len - done), from->data_at + begin + done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return refuse_read(diags, from->path, n < 0 ? strerror(errno) : "it became shorter while it was read");
        done += n;
    }
    return true;
}
