/* Files that are part of the mossc binary: the build writes their arrays from the files' bytes. */
#ifndef MOSSC_CODEGEN_EMBEDDED_H
#define MOSSC_CODEGEN_EMBEDDED_H

#include <stddef.h>

typedef struct {
    const char *name;   /* "gemm.c", "simd.h": the file's own name */
    const char *text;   /* NUL-terminated */
    size_t len;
} EmbeddedFile;

extern const EmbeddedFile embedded_templates[];   /* codegen/templates, every .c file */
extern const int n_embedded_templates;
extern const EmbeddedFile embedded_gpu_templates[];   /* codegen/gpu, every .c file */
extern const int n_embedded_gpu_templates;
extern const EmbeddedFile embedded_gpu_headers[];     /* codegen/gpu, every .h file */
extern const int n_embedded_gpu_headers;
extern const EmbeddedFile embedded_gpu_bitcode[];     /* the same as LLVM bitcode, NAME.bc; none without LLVM */
extern const int n_embedded_gpu_bitcode;
extern const EmbeddedFile embedded_runtime[];     /* headers that generated code includes */
extern const int n_embedded_runtime;

#endif
