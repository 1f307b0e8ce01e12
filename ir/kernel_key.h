/* Kernel keys: the names under which Choices and tuning records know an operation.
 *
 * A key is the template's name and what fixes its work: sizes, storage, how pairs are read and written,
 * experts a token. Operations with equal keys are one kernel and share one choice. Strides, panels and all that
 * the planner decides are not part of it.
 */
#ifndef MOSSC_IR_KERNEL_KEY_H
#define MOSSC_IR_KERNEL_KEY_H

#include "module.h"
#include "text.h"

/* "gemm n_in=64 n_out=128 n_experts=4 ...", "gemv ..." in decode, "scan ...", "route ..." and "rms_norm_route ..." in
 * prefill, "attention ..." in both.
 * False, and nothing is printed, when nothing about `op` can be chosen. */
bool kernel_key_print(const Op *op, Phase phase, Text *out);
/* What of the whole model is chosen: chunks. */
#define KERNEL_KEY_MODEL "model"

#endif
