/* The files of a Hugging Face folder: config.json and the tensors of one or many safetensors files. */
#ifndef MOSSC_COMPILER_IMPORT_FILES_H
#define MOSSC_COMPILER_IMPORT_FILES_H

#include "json.h"
#include "safetensors.h"

typedef struct {
    const char *path;
    int fd;
    int64_t data_at;        /* first byte after the header */
} ImportShard;

/* One tensor of the checkpoint. */
typedef struct {
    const SafetensorsEntry *entry;
    int shard;
    bool used;              /* set by whoever takes it: what stays unused is an error */
} ImportSource;

typedef struct {
    ImportShard *shards;
    int n_shards;
    ImportSource *sources;  /* sorted by name */
    int n_sources;
} ImportFiles;

/* A JSON file of the folder. NULL after reporting. */
Json *import_read_json(Arena *arena, Diags *diags, const char *path);

/* model.safetensors, or every shard of model.safetensors.index.json: headers are read and checked,
 * no data. False after reporting; nothing stays open then. */
bool import_files_open(Arena *arena, Diags *diags, const char *folder, ImportFiles *out);
void import_files_close(ImportFiles *files);

ImportSource *import_files_find(const ImportFiles *files, const char *name);    /* NULL: none */
const char *import_source_path(const ImportFiles *files, const ImportSource *source);
/* Bytes of the data of a shard. False after reporting. */
bool import_files_read(const ImportFiles *files, Diags *diags, int shard, int64_t begin, int64_t len, void *out);

#endif
