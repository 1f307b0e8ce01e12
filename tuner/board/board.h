/* Board: what is built into a program for one trial elsewhere, and how that program answers.
 *
 * mossc writes a BoardTrial as C, links it with this folder, with the tuner's files that measure, and with the kernels,
 * and has the program run by a command (runner.h). The program reads nothing. It writes lines
 *     =CHECKSUM WORDS
 * to its standard output, the checksum as board_checksum gives it; lines of another form are not its own:
 *     hello VERSION           it runs
 *     cpu NAME : VALUE        of each processor, as /proc/cpuinfo has it
 *     emulated                where that tells it
 *     runs I | lacks I NAME   for each set of features: does this CPU have them?
 *     threads N               of its big cores
 *     ceilings OPERATIONS INT8 BYTES          a second, where they are asked for
 *     speed SECONDS           of a million multiply-adds in double, where there is nothing to try
 *     alive                   every second, while something is being tried
 *     bits I HASH             of the default's results of check I; 0, of an untuned model's logits
 *     status NAME, error E, detail WORDS, pairs I N CANDIDATE INCUMBENT ...   as a TrialResult has them, or a
 *                             StepResult: prefill, decode, chunks and variants, in this order
 *     end
 */
#ifndef MOSSC_TUNER_BOARD_H
#define MOSSC_TUNER_BOARD_H

#include "../ceilings_run.h"
#include "../measure.h"

enum { BOARD_VERSION = 2, BOARD_MAX_CODES = 3, BOARD_MAX_PAIRS = 18 };

/* A kernel: its arguments' names, and how it is called with their values. */
typedef struct {
    const char *const *names;
    int n;
    void (*run)(const WorkValue *values);
} BoardKernel;

typedef struct {
    const char *nonce;                   /* of this program: its lines are no other's */
    const char *features[BOARD_MAX_CODES];       /* what the kernels need; where there are none, what is asked for */
    int n_features;
    void (*work)(void);                  /* compares whole models (step/board_step.h), finds ceilings; NULL: a kernel */
    const BoardKernel *candidate, *incumbent, *original;         /* candidate NULL: only say what this machine is */
    WorkSpec checks[TRIAL_MAX_WORKS], times[TRIAL_MAX_WORKS];
    int n_checks, n_times;
    int64_t pack_len, original_pack_len;
    int block_rows;
    bool measure_all, same_bits;
    bool reference;                      /* compare with plain loops; else the default's bits alone */
    double deadline;
} BoardTrial;

extern const BoardTrial board_trial;

/* A kernel linked in as measure.c calls it: no two at a time of one BoardKernel. NULL: no memory. */
KernelCall *board_kernel(const BoardKernel *kernel);
/* The lines cpu and emulated, by `say`. */
void board_say_machine(void (*say)(const char *format, ...));
/* A line; those of a result. */
void board_say(const char *format, ...);
void board_say_outcome(TrialStatus status, double max_error, const char *detail);
void board_say_pairs(int index, const TrialPairs *pairs);
/* For `work` to call. */
void board_ceilings(const CeilingKernels *kernels, double deadline);

/* FNV-1a of nonce and words. */
static inline uint32_t board_checksum(const char *nonce, const char *words)
{
    uint32_t hash = 0x811C9DC5;
    for (; *nonce; nonce++)
        hash = (hash ^ (uint8_t)*nonce) * 0x01000193;
    for (; *words; words++)
        hash = (hash ^ (uint8_t)*words) * 0x01000193;
    return hash;
}

#endif
