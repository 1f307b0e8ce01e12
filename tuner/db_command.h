/* mossc db: merge, show, prune and export of tuning databases. */
#ifndef MOSSC_TUNER_DB_COMMAND_H
#define MOSSC_TUNER_DB_COMMAND_H

#include "../compiler/options.h"

/* options->rest is the verb and its files. What is printed goes to standard output. */
void db_command(Arena *arena, Diags *diags, const Options *options);
/* For --help: what each verb does. */
void db_help(Text *out);

#endif
