/* `eval`: how well the model predicts a text.
 *
 * Input: a text (or ids) and a window length. Output: nats a token, perplexity, and for byte
 * models bits a byte. The text is cut into windows in order; each starts from an empty state and
 * also predicts the first token of the next, so every token but the first of all is predicted once.
 * Invariant: sums are double, in order: the figure does not depend on threads or chunks.
 */
#include "cli.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    const moss_args *args;
    moss_session session;
    moss_tokens text;
    double nats;           /* summed over the predicted tokens */
    int64_t n_predicted;
} moss_evaluation;

/* -log softmax(logits)[target]. */
static double moss_eval_nats(const float *logits, int32_t vocab_size, int32_t target)
{
    double largest = logits[0], sum = 0;
    for (int32_t i = 1; i < vocab_size; i++)
        if (logits[i] > largest)
            largest = logits[i];
    for (int32_t i = 0; i < vocab_size; i++)
        sum += exp(logits[i] - largest);
    return log(sum) + largest - logits[target];
}

/* Tokens [from, from + n) of one window, at most one piece. */
static int moss_eval_piece(moss_evaluation *eval, int64_t from, int32_t n)
{
    const int32_t vocab_size = moss_program_data.vocab_size;
    const int32_t *tokens = eval->text.ids + from;
    int code = moss_session_eval(&eval->session, 0, tokens, n, n);
    if (code != MOSS_EXIT_OK)
        return code;
    for (int32_t i = 0; i < n; i++)
        eval->nats += moss_eval_nats(eval->session.logits + (size_t)i * (size_t)vocab_size,
                                     vocab_size, tokens[i + 1]);
    eval->n_predicted += n;
    moss_cli_progress("%jd of %d tokens, %.4f nats a token", (intmax_t)eval->n_predicted,
                      eval->text.n - 1, eval->nats / (double)eval->n_predicted);
    return moss_interrupted() ? moss_cli_fail(eval->args, MOSS_EXIT_SYSTEM, "interrupted")
                              : MOSS_EXIT_OK;
}

static int moss_eval_window(moss_evaluation *eval, int64_t from, int64_t n)
{
    int code = moss_session_reset(&eval->session, 0);
    for (int64_t done = 0; done < n && code == MOSS_EXIT_OK; done += eval->session.chunk) {
        const int64_t left = n - done;
        code = moss_eval_piece(eval, from + done,
                               left < eval->session.chunk ? (int32_t)left : eval->session.chunk);
    }
    return code;
}

static int moss_eval_print(const moss_evaluation *eval, int64_t window)
{
    const double nats = eval->nats / (double)eval->n_predicted;
    moss_cli_progress(NULL);
    printf("tokens predicted   %jd, in windows of %jd\n", (intmax_t)eval->n_predicted,
           (intmax_t)window);
    printf("experts a token    %d\n", moss_mode_top_k(eval->session.mode));
    printf("nats a token       %.6f\n", nats);
    printf("perplexity         %.6f\n", exp(nats));
    if (moss_program_data.vocab_size == MOSS_BYTE_VOCAB)
        printf("bits a byte        %.6f\n", nats / log(2));
    return moss_cli_flush(eval->args);
}

static int moss_eval_windows(moss_evaluation *eval, int64_t window)
{
    const int64_t n = eval->text.n - 1;   /* the last token is only predicted */
    const int32_t chunk = moss_chunk_len(eval->args);
    int code = moss_session_open(&eval->session, eval->args, 1, window,
                                 window < chunk ? (int32_t)window : chunk);
    for (int64_t from = 0; from < n && code == MOSS_EXIT_OK; from += window)
        code = moss_eval_window(eval, from, n - from < window ? n - from : window);
    if (code == MOSS_EXIT_OK)
        code = moss_eval_print(eval, window);
    moss_session_close(&eval->session);
    return code;
}

int moss_eval_main(const moss_args *args)
{
    moss_evaluation eval = { .args = args };
    int code = moss_tokens_read(&eval.text, args, MOSS_OPT_PROMPT, MOSS_OPT_TEXT, "");
    if (code == MOSS_EXIT_OK && eval.text.n < 2)
        code = moss_cli_fail(args, MOSS_EXIT_INPUT, "found %d token, expected 2 or more: the first "
                             "is not predicted", eval.text.n);
    if (code == MOSS_EXIT_OK) {
        const int64_t window = args->values[MOSS_OPT_WINDOW].number;
        code = moss_eval_windows(&eval, window < eval.text.n ? window : eval.text.n);
    }
    free(eval.text.ids);
    return code;
}
