/* mossc import: config.json -> graph -> places of its tensors -> model.json and model.safetensors.
 *
 * Input: a Hugging Face folder. Output: a folder that compile takes.
 * Invariant: a folder with a model.json holds a whole model: both files are made under a temporary
 * name, the old model.json goes first and the new one comes last. Data is copied through one
 * buffer, so memory does not grow with the checkpoint.
 */
#include "import.h"

#include "graph_read.h"
#include "import_tensors.h"
#include "interrupt.h"
#include "outfile.h"
#include "safetensors_write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_LEN = 1 << 20 };
static const int64_t long_len = INT64_C(256) << 20;     /* from here on progress is shown */

typedef struct {
    Arena *arena;
    Diags *diags;
    const char *folder, *out;       /* without slashes at the end */
    ImportConfig config;
    const Graph *graph;
    Text text;                      /* model.json */
    ImportFiles files;
    ImportTensor *tensors;
    int n_tensors;
    int64_t n_done, n_bytes;        /* of the data */
    int percent;                    /* shown last; -1: not shown */
} Import;

/* --- the graph --- */

/* The folder's own name, in characters that suit a name. */
static const char *model_name(Import *import)
{
    char *real = realpath(import->folder, NULL);
    const char *base = strrchr(real ? real : import->folder, '/');
    char *name = arena_strndup(import->arena, base && base[1] ? base + 1 : "imported", 200);
    for (char *c = name; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '-';
    free(real);
    return name;
}

static bool make_graph(Import *import)
{
    const char *config = arena_printf(import->arena, "%s/config.json", import->folder);
    if (!import_config_read(import->arena, import->diags, config, &import->config))
        return false;
    import_config_print(&import->config, model_name(import), &import->text);
    const char *path = arena_printf(import->arena, "%s/model.json", import->out);
    import->graph = graph_read_text(import->arena, import->diags, path, import->text.data, import->text.len);
    if (!import->graph)
        diag_note(import->diags, NULL, "this graph was made from %s", config);
    return import->graph != NULL;
}

/* --- the data --- */

static void show_progress(Import *import)
{
    enum { WIDTH = 32 };
    int percent = (int)(100 * (double)import->n_done / (double)import->n_bytes);
    if (import->percent < 0 || percent == import->percent)
        return;
    import->percent = percent;
    int filled = WIDTH * percent / 100;
    fprintf(stderr, "\rimporting weights [%.*s%*s] %3d %%", filled, "################################", WIDTH - filled, "",
            percent);
    if (import->n_done == import->n_bytes)
        fprintf(stderr, "\r%60s\r", "");
}

static bool copy_piece(Import *import, SafetensorsWriter *writer, const ImportPiece *piece, char *buffer)
{
    for (int64_t at = 0; at < piece->len; at += BUFFER_LEN) {
        int64_t n = piece->len - at < BUFFER_LEN ? piece->len - at : BUFFER_LEN;
        interrupt_check();
        if (piece->shard < 0)
            memset(buffer, 0, (size_t)n);
        else if (!import_files_read(&import->files, import->diags, piece->shard, piece->begin + at, n, buffer))
            return false;
        if (!safetensors_write_bytes(writer, buffer, (size_t)n))
            return false;
        import->n_done += n;
        show_progress(import);
    }
    return true;
}

static bool copy_data(Import *import, SafetensorsWriter *writer)
{
    char *buffer = arena_alloc(import->arena, BUFFER_LEN);
    for (int i = 0; i < import->n_tensors; i++)
        for (int j = 0; j < import->tensors[i].n_pieces; j++)
            if (!copy_piece(import, writer, &import->tensors[i].pieces[j], buffer))
                return false;
    return true;
}

static bool write_weights(Import *import, const char *path)
{
    SafetensorsEntry *entries = arena_array(import->arena, SafetensorsEntry, (size_t)import->n_tensors);
    for (int i = 0; i < import->n_tensors; i++) {
        entries[i] = import->tensors[i].entry;
        import->n_bytes += safetensors_entry_len(&entries[i]);
    }
    import->percent = isatty(STDERR_FILENO) && import->n_bytes >= long_len ? 0 : -1;
    SafetensorsWriter *writer = safetensors_write_open(import->arena, import->diags, path, entries, import->n_tensors);
    if (!writer)
        return false;
    bool good = copy_data(import, writer);
    return safetensors_write_close(writer, !good) && good;
}

/* --- the folder --- */

static bool fail_write(Import *import, const char *path, const char *why)
{
    diag_report(import->diags, DIAG_FILE_WRITE, NULL, "%s: %s", path, why);
    return false;
}

/* Reading and writing the same folder would replace what is still to be read. */
static bool check_folders(Import *import)
{
    struct stat from, to;
    if (stat(import->folder, &from) != 0 || stat(import->out, &to) != 0)
        return true;
    if (!S_ISDIR(to.st_mode))
        return fail_write(import, import->out, "expected a folder");
    if (from.st_dev != to.st_dev || from.st_ino != to.st_ino)
        return true;
    diag_report(import->diags, DIAG_USAGE, NULL, "`-o %s` is the folder that is imported", import->out);
    return false;
}

static bool publish(Import *import, const OutFolder *folder)
{
    const char *graph = arena_printf(import->arena, "%s/model.json", import->out);
    const char *weights = arena_printf(import->arena, "%s/model.safetensors", import->out);
    bool made = mkdir(import->out, 0777) == 0;
    if (!made && errno != EEXIST)
        return fail_write(import, import->out, strerror(errno));
    if (unlink(graph) != 0 && errno != ENOENT)
        return fail_write(import, graph, strerror(errno));
    if (out_publish(import->diags, out_folder_file(import->arena, folder, "model.safetensors"), weights)
        && out_publish(import->diags, out_folder_file(import->arena, folder, "model.json"), graph))
        return true;
    if (made)
        rmdir(import->out);
    return false;
}

static bool write_folder(Import *import)
{
    OutFolder folder;
    if (!out_folder_make(import->arena, import->diags, import->out, &folder))
        return false;
    bool good = write_weights(import, out_folder_file(import->arena, &folder, "model.safetensors"))
        && out_write(import->diags, out_folder_file(import->arena, &folder, "model.json"), import->text.data,
                     import->text.len)
        && publish(import, &folder);
    out_folder_remove(&folder);
    return good;
}

/* --- all of it --- */

static bool import_all(Import *import)
{
    if (!check_folders(import) || !make_graph(import)
        || !import_files_open(import->arena, import->diags, import->folder, &import->files))
        return false;
    import->tensors = import_tensors_match(import->arena, import->diags, &import->files, &import->config, import->graph,
                                           &import->n_tensors);
    bool good = import->tensors && write_folder(import);
    import_files_close(&import->files);
    return good;
}

static const char *without_slashes(Arena *arena, const char *path)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    return arena_strndup(arena, path, len);
}

bool import_folder(Arena *arena, Diags *diags, const char *folder, const char *out, bool verbose)
{
    Import import = { .arena = arena, .diags = diags, .folder = without_slashes(arena, folder),
                      .out = without_slashes(arena, out) };
    bool good = import_all(&import);
    if (good && verbose)
        printf("%s/model.json, model.safetensors: %s, %d layers, %lld parameters\n", import.out,
               import.config.model_type, import.graph->n_layers, (long long)graph_total_params(import.graph));
    text_free(&import.text);
    return good;
}
