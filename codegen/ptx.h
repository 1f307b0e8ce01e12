/* GPU kernels as PTX: instances of the templates in codegen/gpu, compiled by LLVM.
 *
 * Input: a template's name and its parameters; output: the name of the instance, and at the end one
 * PTX text with all of them, in the order first asked for. The same requests give the same
 * bytes. Invariant: every entry of the text is self-contained; the only name they share is that of
 * dynamic shared memory.
 */
#ifndef MOSSC_CODEGEN_PTX_H
#define MOSSC_CODEGEN_PTX_H

#include "template.h"

typedef struct Ptx Ptx;

/* False: mossc was built without LLVM, and ptx_finish must not be called. */
bool ptx_available(void);

/* sm: 80 (a100) or 90 (h100). Kernels *_h100 exist for 90 only. */
Ptx *ptx_open(int sm);
/* The instance's name, alive until ptx_close. Launches have exactly n_threads threads a block, and
 * min_blocks blocks shall fit a multiprocessor (0: any); both are the same in every request for
 * one instance. A template, parameter or value that does not exist is a bug of mossc. */
const char *ptx_instance(Ptx *ptx, const char *name, const TemplateBinding *bindings, int n, int n_threads,
    int min_blocks);
int ptx_n_kernels(const Ptx *ptx);
const char *ptx_kernel_name(const Ptx *ptx, int i);
/* Compile what was asked for and write the text. What LLVM warned of (loops it could not unroll) goes to
 * `warnings`, which may be NULL. */
void ptx_finish(Ptx *ptx, Text *out, Text *warnings);
void ptx_close(Ptx *ptx);

#endif
