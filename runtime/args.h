/* Command lines: from argv to typed, range-checked values.
 *
 * The first argument may name a command; without one it is `run`. Options are those of
 * options.def that belong to the command. Invariant: after MOSS_EXIT_OK every value present is of
 * its kind and in its range; otherwise `message` says what was found and expected.
 */
#ifndef MOSS_ARGS_H
#define MOSS_ARGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { MOSS_EXIT_OK = 0, MOSS_EXIT_INPUT = 1, MOSS_EXIT_USAGE = 2, MOSS_EXIT_SYSTEM = 3 };

/* Bits, so that an option can belong to several. */
typedef enum {
    MOSS_CMD_RUN = 1, MOSS_CMD_BENCH = 2, MOSS_CMD_EVAL = 4, MOSS_CMD_INFO = 8,
} moss_command;

typedef enum {
#define OPTION(id, ...) MOSS_OPT_##id,
#include "options.def"
#undef OPTION
    MOSS_N_OPTIONS
} moss_option;

typedef struct {
    bool present;        /* given, or has a default */
    bool given;          /* on the command line */
    int64_t number;      /* INT */
    double real;         /* REAL */
    const char *text;    /* as written, every kind but FLAG */
} moss_value;

typedef struct {
    const char *program;     /* its name in messages */
    moss_command command;
    moss_value values[MOSS_N_OPTIONS];
    char message[256];
} moss_args;

/* MOSS_EXIT_OK, or MOSS_EXIT_USAGE with `message`. */
int moss_args_parse(moss_args *args, int argc, char **argv);
void moss_args_help(const moss_args *args, FILE *out);

/* The numbers of an INTS value: up to `room` of them to `out`; returns how many there are. */
int32_t moss_args_ints(const char *text, int32_t *out, int32_t room);

#endif
