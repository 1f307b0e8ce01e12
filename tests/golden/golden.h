/* Golden tests: text in, text out, beside each other.
 *
 * Input: a folder of NAME<suffix> with NAME.expected beside each, and a function from one text to the
 * other. Output: nothing, or a line diff and a non-zero exit code; with --update the .expected files are
 * rewritten instead.
 */
#ifndef MOSSC_TESTS_GOLDEN_H
#define MOSSC_TESTS_GOLDEN_H

#include "../../ir/text.h"

/* What the case `name` with this source must give, appended to `found`. */
typedef void GoldenFn(const char *name, const Text *source, Text *found);

/* What main returns. `program` is told in the usage line; `suffix` such as ".json". */
int golden_main(int argc, char **argv, const char *program, const char *suffix, GoldenFn *run);

#endif
