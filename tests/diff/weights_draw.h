/* Drawn weights: a checkpoint made from another by changing what random:SEED leaves constant.
 *
 * Input: weights and a Draw. Output: a safetensors file in float32.
 * Norms, biases, D and A_log of random weights are 1, 0 or the same in every channel: code that
 * reads the wrong one of them would not be noticed.
 */
#ifndef MOSSC_TESTS_WEIGHTS_DRAW_H
#define MOSSC_TESTS_WEIGHTS_DRAW_H

#include "cases.h"

#include "../../compiler/weights.h"

#include <stdbool.h>

/* Write `weights`, changed as `draw` says, to `path`. */
bool weights_draw(const Weights *weights, Draw draw, uint64_t seed, const char *path);

#endif
