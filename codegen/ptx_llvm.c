/* One kernel through LLVM: its bitcode, parameters bound, optimised, as PTX.
 *
 * The order matters: bind; forget what clang noted about the processor; promise that inline asm
 * returns (or it stands in the way of moving loads); note the launch bounds; verify; internalise
 * everything but the kernel and optimise; see that nothing is left unbound; emit. No instruction is
 * made or changed here. Each kernel has a context of its own, so threads need no lock.
 */
#include "ptx.h"
#include "ptx_compile.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/BitReader.h>
#include <llvm-c/Core.h>
#include <llvm-c/ErrorHandling.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <pthread.h>
#include <string.h>

enum { SHARED_SPACE = 3 };

bool ptx_available(void)
{
    return true;
}

static void stop_fatal(const char *reason)
{
    BUG("LLVM: %s", reason);
}

static void init_once(void)
{
    LLVMInstallFatalErrorHandler(stop_fatal);
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
}

void ptx_compile_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
}

static void collect_diagnostic(LLVMDiagnosticInfoRef info, void *context)
{
    PtxKernel *kernel = context;
    char *words = LLVMGetDiagInfoDescription(info);
    const LLVMDiagnosticSeverity severity = LLVMGetDiagInfoSeverity(info);
    if (severity == LLVMDSError)
        BUG("%s: %s", kernel->name, words);
    if (severity == LLVMDSWarning)
        text_printf(&kernel->warnings, "%s: %s\n", kernel->name, words);
    LLVMDisposeMessage(words);
}

static LLVMModuleRef load(const PtxKernel *kernel, LLVMContextRef context)
{
    const size_t len = strlen(kernel->template->name);
    for (int i = 0; i < n_embedded_gpu_bitcode; i++) {
        const EmbeddedFile *file = &embedded_gpu_bitcode[i];
        if (strncmp(file->name, kernel->template->name, len) != 0 || strcmp(file->name + len, ".bc") != 0)
            continue;
        LLVMMemoryBufferRef bytes = LLVMCreateMemoryBufferWithMemoryRange(file->text, file->len, file->name, 0);
        LLVMModuleRef module;
        if (LLVMParseBitcodeInContext2(context, bytes, &module))
            BUG("%s: not bitcode", file->name);
        LLVMDisposeMemoryBuffer(bytes);
        return module;
    }
    BUG("no bitcode of %s", kernel->template->name);
}

/* ---- parameters ---- */

static void bind_global(LLVMModuleRef module, const char *name, LLVMValueRef value)
{
    LLVMValueRef global = LLVMGetNamedGlobal(module, name);
    if (!global)
        return;                     /* no code uses it */
    LLVMSetInitializer(global, value);
    LLVMSetGlobalConstant(global, 1);
    LLVMSetLinkage(global, LLVMInternalLinkage);
}

static void bind(const PtxKernel *kernel, LLVMContextRef context, LLVMModuleRef module)
{
    LLVMTypeRef i32 = LLVMInt32TypeInContext(context), f32 = LLVMFloatTypeInContext(context);
    for (int i = 0; i < kernel->template->n_params; i++) {
        const TemplateParam *param = &kernel->template->params[i];
        bind_global(module, param->name, param->is_float ? LLVMConstReal(f32, kernel->values[i])
            : LLVMConstInt(i32, (unsigned long long)(long long)kernel->values[i], 1));
    }
    bind_global(module, "sm", LLVMConstInt(i32, (unsigned long long)kernel->sm, 0));
}

/* What only dialect.h could have left open: ptxas would take it as a name from elsewhere. */
static void reject_unbound(const PtxKernel *kernel, LLVMModuleRef module)
{
    for (LLVMValueRef g = LLVMGetFirstGlobal(module); g; g = LLVMGetNextGlobal(g)) {
        size_t len;
        const bool is_shared = LLVMGetPointerAddressSpace(LLVMTypeOf(g)) == SHARED_SPACE;
        if (LLVMIsDeclaration(g) && !is_shared)
            BUG("%s: %s is not bound", kernel->name, LLVMGetValueName2(g, &len));
        if (!LLVMIsDeclaration(g) && is_shared)
            BUG("%s: %s is shared memory of fixed length", kernel->name, LLVMGetValueName2(g, &len));
    }
    for (LLVMValueRef f = LLVMGetFirstFunction(module); f; f = LLVMGetNextFunction(f)) {
        size_t len;
        const char *name = LLVMGetValueName2(f, &len);
        if (strcmp(name, kernel->name) != 0 && !LLVMGetIntrinsicID(f))
            BUG("%s: %s is not inlined", kernel->name, name);
    }
}

/* ---- attributes and metadata ---- */

static void promise_return(LLVMContextRef context, LLVMValueRef function)
{
    const unsigned kind = LLVMGetEnumAttributeKindForName("willreturn", strlen("willreturn"));
    LLVMAttributeRef willreturn = LLVMCreateEnumAttribute(context, kind, 0);
    for (LLVMBasicBlockRef block = LLVMGetFirstBasicBlock(function); block; block = LLVMGetNextBasicBlock(block))
        for (LLVMValueRef i = LLVMGetFirstInstruction(block); i; i = LLVMGetNextInstruction(i))
            if (LLVMIsACallInst(i) && LLVMIsAInlineAsm(LLVMGetCalledValue(i)))
                LLVMAddCallSiteAttribute(i, (LLVMAttributeIndex)LLVMAttributeFunctionIndex, willreturn);
}

static void annotate(LLVMContextRef context, LLVMModuleRef module, LLVMValueRef function, const char *key, int value)
{
    LLVMMetadataRef row[] = { LLVMValueAsMetadata(function), LLVMMDStringInContext2(context, key, strlen(key)),
        LLVMValueAsMetadata(LLVMConstInt(LLVMInt32TypeInContext(context), (unsigned long long)value, 0)) };
    LLVMMetadataRef node = LLVMMDNodeInContext2(context, row, sizeof row / sizeof *row);
    LLVMAddNamedMetadataOperand(module, "nvvm.annotations", LLVMMetadataAsValue(context, node));
}

/* Structures by value stay where the launch put them: the bulk tensor copy takes their address. LLVM reads but one
 * such note, so it names them all. */
static void annotate_structures(LLVMContextRef context, LLVMModuleRef module, LLVMValueRef function)
{
    enum { MAX_STRUCTURES = 4 };
    const unsigned byval = LLVMGetEnumAttributeKindForName("byval", strlen("byval"));
    LLVMMetadataRef structures[MAX_STRUCTURES];
    size_t n = 0;
    for (unsigned i = 1; i <= LLVMCountParams(function); i++) {
        if (!LLVMGetEnumAttributeAtIndex(function, (LLVMAttributeIndex)i, byval))
            continue;
        if (n == MAX_STRUCTURES)
            BUG("a kernel takes more than %d structures", MAX_STRUCTURES);
        structures[n++] = LLVMValueAsMetadata(LLVMConstInt(LLVMInt32TypeInContext(context), i, 0));
    }
    if (n == 0)
        return;
    LLVMMetadataRef key = LLVMMDStringInContext2(context, "grid_constant", strlen("grid_constant"));
    LLVMMetadataRef row[] = { LLVMValueAsMetadata(function), key, LLVMMDNodeInContext2(context, structures, n) };
    LLVMMetadataRef node = LLVMMDNodeInContext2(context, row, sizeof row / sizeof *row);
    LLVMAddNamedMetadataOperand(module, "nvvm.annotations", LLVMMetadataAsValue(context, node));
}

static void prepare(const PtxKernel *kernel, LLVMContextRef context, LLVMModuleRef module)
{
    LLVMValueRef function = LLVMGetNamedFunction(module, kernel->template->name);
    if (!function)
        BUG("%s: its bitcode has no kernel", kernel->name);
    LLVMSetValueName2(function, kernel->name, strlen(kernel->name));
    static const char *const notes[] = { "target-cpu", "target-features", "frame-pointer" };
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
        LLVMRemoveStringAttributeAtIndex(function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex, notes[i],
            (unsigned)strlen(notes[i]));
    promise_return(context, function);
    annotate_structures(context, module, function);
    annotate(context, module, function, "maxntidx", kernel->n_threads);
    if (kernel->min_blocks > 0)
        annotate(context, module, function, "minctasm", kernel->min_blocks);
}

/* Tables that are left belong to this kernel alone: name them so. */
static void rename_tables(const PtxKernel *kernel, LLVMModuleRef module)
{
    int n = 0;
    for (LLVMValueRef g = LLVMGetFirstGlobal(module); g; g = LLVMGetNextGlobal(g)) {
        if (LLVMIsDeclaration(g))
            continue;
        Text name = { 0 };
        text_printf(&name, "%s_table%d", kernel->name, n++);
        LLVMSetValueName2(g, name.data, name.len);
        text_free(&name);
    }
}

/* ---- the pipeline ---- */

/* PTX 7.4: drivers since 2021. sm_90a asks for 8.0. */
static LLVMTargetMachineRef open_machine(const PtxKernel *kernel)
{
    const char *triple = "nvptx64-nvidia-cuda";
    LLVMTargetRef target;
    char *problem;
    if (LLVMGetTargetFromTriple(triple, &target, &problem))
        BUG("LLVM: %s", problem);
    return LLVMCreateTargetMachine(target, triple, kernel->sm == 90 ? "sm_90a" : "sm_80",
        kernel->sm == 90 ? "+ptx80" : "+ptx74", LLVMCodeGenLevelAggressive, LLVMRelocDefault, LLVMCodeModelDefault);
}

static void optimise(const PtxKernel *kernel, LLVMModuleRef module, LLVMTargetMachineRef machine)
{
    Text passes = { 0 };
    text_printf(&passes, "internalize<preserve-gv=%s>,default<O3>", kernel->name);
    LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
    LLVMErrorRef error = LLVMRunPasses(module, passes.data, machine, options);
    if (error)
        BUG("%s: %s", kernel->name, LLVMGetErrorMessage(error));
    LLVMDisposePassBuilderOptions(options);
    text_free(&passes);
}

static void emit(PtxKernel *kernel, LLVMModuleRef module, LLVMTargetMachineRef machine)
{
    LLVMMemoryBufferRef bytes;
    char *problem;
    if (LLVMTargetMachineEmitToMemoryBuffer(machine, module, LLVMAssemblyFile, &problem, &bytes))
        BUG("%s: %s", kernel->name, problem);
    text_append(&kernel->ptx, LLVMGetBufferStart(bytes), LLVMGetBufferSize(bytes));
    LLVMDisposeMemoryBuffer(bytes);
}

void ptx_compile(PtxKernel *kernel)
{
    LLVMContextRef context = LLVMContextCreate();
    LLVMContextSetDiagnosticHandler(context, collect_diagnostic, kernel);
    LLVMModuleRef module = load(kernel, context);
    LLVMTargetMachineRef machine = open_machine(kernel);
    bind(kernel, context, module);
    prepare(kernel, context, module);
    char *problem;
    if (LLVMVerifyModule(module, LLVMReturnStatusAction, &problem))
        BUG("%s: %s", kernel->name, problem);
    LLVMDisposeMessage(problem);
    optimise(kernel, module, machine);
    reject_unbound(kernel, module);
    rename_tables(kernel, module);
    emit(kernel, module, machine);
    LLVMDisposeTargetMachine(machine);
    LLVMDisposeModule(module);
    LLVMContextDispose(context);
}
