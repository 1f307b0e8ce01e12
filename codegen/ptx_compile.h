/* One kernel through LLVM: what codegen/ptx.c hands to codegen/ptx_llvm.c. */
#ifndef MOSSC_CODEGEN_PTX_COMPILE_H
#define MOSSC_CODEGEN_PTX_COMPILE_H

#include "template.h"

typedef struct {
    const char *name;               /* of the instance */
    const Template *template;
    double values[TEMPLATE_MAX_PARAMS];
    int sm, n_threads, min_blocks;
    Text ptx, warnings;             /* results */
} PtxKernel;

/* Before a thread compiles; any may ask. */
void ptx_compile_init(void);
/* Fills kernel->ptx with the PTX of this kernel alone. Kernels may be compiled by several threads. */
void ptx_compile(PtxKernel *kernel);

#endif
