/* Where every tensor of the graph comes from: rows of import.def applied to a checkpoint. */
#ifndef MOSSC_COMPILER_IMPORT_TENSORS_H
#define MOSSC_COMPILER_IMPORT_TENSORS_H

#include "import_config.h"
#include "import_files.h"

/* Bytes of one shard's data; shard -1: zeros. */
typedef struct { int shard; int64_t begin, len; } ImportPiece;

typedef struct {
    SafetensorsEntry entry;     /* name, dtype and shape of ours */
    ImportPiece *pieces;        /* one after another they are its data */
    int n_pieces;
} ImportTensor;

/* Every tensor of the graph, in its order. NULL after reporting what is missing, extra, misshapen
 * or of a type that is not known. */
ImportTensor *import_tensors_match(Arena *arena, Diags *diags, const ImportFiles *files, const ImportConfig *config,
                                   const Graph *graph, int *n_tensors);

#endif
