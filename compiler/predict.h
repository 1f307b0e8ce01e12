/* Prediction: tokens a second of a planned model on a device nobody has at hand. */
#ifndef MOSSC_COMPILER_PREDICT_H
#define MOSSC_COMPILER_PREDICT_H

#include "devices.h"
#include "plan.h"

typedef struct {
    bool decode;
    int experts_per_token;
    int64_t n_context;         /* prefill: length of the prompt; decode: tokens seen before */
    Span tokens;               /* a second */
    Span memory_share;         /* decode: of what reading its bytes alone would allow */
} PredictionRow;

enum { PREDICTION_MAX_ROWS = 4 * GRAPH_MAX_MODES };
typedef struct {
    Device device;
    const char *code;          /* the target whose code runs */
    int n_threads, n_rows;
    PredictionRow rows[PREDICTION_MAX_ROWS];
} Prediction;

/* Of prompts of 512 and n_context tokens and of generation behind them. */
Prediction predict_plan(const Plan *plan, const Device *device, const char *code, int n_threads, int64_t n_context);

void prediction_print(const Prediction *prediction, int64_t memory_len, Text *out);
void prediction_print_json(const Prediction *prediction, Text *out);

#endif
