/* The decode list: one token of each of a few sequences.
 *
 * Input and output as in gpu_lower.c; the same kernels, told that every token is another sequence's.
 */
#include "gpu_model.h"

void gpu_decode(GpuModel *g) { gpu_lower(g); }
