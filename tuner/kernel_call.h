/* Kernel call: a compiled kernel file, called through libffi by its manifest alone. */
#ifndef MOSSC_TUNER_KERNEL_CALL_H
#define MOSSC_TUNER_KERNEL_CALL_H

#include "workload.h"

typedef struct KernelCall KernelCall;

/* Loads a shared object; NULL with words in `why`. `suffix` ends the names of its symbols, "" usually. */
KernelCall *kernel_load(const char *path, const char *suffix, char *why, size_t why_len);
/* Takes its arguments from a workload. False, with words, when the manifest asks for something that is not there. */
bool kernel_bind(KernelCall *call, const Work *work, char *why, size_t why_len);
/* With the arguments bound last; the weights are those of one copy. */
void kernel_run(KernelCall *call, int copy);
void kernel_free(KernelCall *call);

#endif
