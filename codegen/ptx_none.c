/* In place of codegen/ptx_llvm.c where mossc is built without LLVM: GPU targets are refused earlier. */
#include "ptx.h"
#include "ptx_compile.h"

bool ptx_available(void)
{
    return false;
}

void ptx_compile_init(void)
{
}

void ptx_compile(PtxKernel *kernel)
{
    BUG("%s: this mossc was built without LLVM", kernel->name);
}
