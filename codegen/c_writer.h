/* C writer, internal: what the file writer (c_file.c) and the call writer (c_calls.c) share. */
#ifndef MOSSC_CODEGEN_C_WRITER_H
#define MOSSC_CODEGEN_C_WRITER_H

#include "../ir/plan.h"
#include "../ir/text.h"

typedef struct {
    Arena *arena;
    const Plan *plan;
    const BlockPlan *block;
    int phase;             /* PLAN_PREFILL, PLAN_DECODE */
    bool in_sequence;      /* inside the loop over sequences: rows begin at `row` */
    Text kernels;          /* instances, each once, in order of first use */
    Text functions;        /* one a block and phase */
    const char **names;    /* of the instances so far */
    int n_names, max_names;
} Writer;

/* Append the call of one step's kernel to `functions`; renders the instance at its first use. */
void c_write_call(Writer *w, const Step *step);

/* The declaration of a state's variable, at the sequence the code is in. */
void c_declare_state(Writer *w, const Value *value);

/* C expressions: rows of a dimension, and the variable that holds a value. */
const char *c_rows(Writer *w, Dim dim);
const char *c_value(const Value *value);

#endif
