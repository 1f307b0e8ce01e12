/* Command lines of mossc: argv becomes values by option, checked against options.def. */
#ifndef MOSSC_COMPILER_OPTIONS_H
#define MOSSC_COMPILER_OPTIONS_H

#include "../ir/diag.h"

#include <stdint.h>

typedef enum { COMMAND_COMPILE = 1, COMMAND_RUN = 2, COMMAND_PARAMS = 4, COMMAND_INSPECT = 8, COMMAND_TARGETS = 16,
               COMMAND_IMPORT = 32, COMMAND_DB = 64, COMMAND_TUNE = 128 } Command;

typedef enum {
#define OPTION(id, ...) OPTION_##id,
#include "options.def"
#undef OPTION
    N_OPTIONS
} OptionId;

enum { OPTIONS_MAX_REST = 256 };
typedef struct {
    const char *value[N_OPTIONS];    /* NULL: not given; a flag given is "" */
    const char *rest[OPTIONS_MAX_REST];   /* positional; for RUN everything this table does not know */
    int n_rest;
} Options;

/* argv[0] is the first argument after the command's name. False after reporting. */
bool options_parse(Options *options, Diags *diags, Command command, int argc, char **argv);
/* Where the model is an artifact, rest[0]: is no option given that only compiling takes? False after reporting. */
bool options_suit_artifact(const Options *options, Diags *diags);
const char *options_name(OptionId id);      /* "--output" */
void options_help(Command command, Text *out);

/* Values; a missing option gives `absent`. False after reporting a bad one. */
bool options_int(const Options *options, Diags *diags, OptionId id, int64_t low, int64_t high, int64_t absent, int64_t *out);
bool options_bytes(const Options *options, Diags *diags, OptionId id, int64_t *out);   /* 0: absent */
bool options_ints(const Options *options, Diags *diags, OptionId id, int64_t *out, int max, int *n);   /* 0: absent */

#endif
