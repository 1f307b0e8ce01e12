/* Board models: library.h for builds of a model that are linked in. */
#include "board_step.h"

#include <stdio.h>
#include <string.h>

struct Library { const BoardModel *model; };

enum { MAX_MODELS = STEP_MAX_VARIANTS + 2 };

Library *library_load(const char *path, char *why, size_t why_len)
{
    static Library all[MAX_MODELS];
    for (int i = 0; i < board_step.n_models && i < MAX_MODELS; i++)
        if (strcmp(board_step.models[i].path, path) == 0) {
            all[i].model = &board_step.models[i];
            return &all[i];
        }
    snprintf(why, why_len, "%s is not in the program", path);
    return NULL;
}

int64_t library_call(Library *library, const char *name, const LibraryValue *arguments, int n, bool *ok)
{
    static const struct { const char *name; BoardFunction function; int n; } functions[] = {
        { "model_len", MODEL_LEN, 0 }, { "context_len", CONTEXT_LEN, 1 }, { "state_len", STATE_LEN, 1 },
        { "model_open", MODEL_OPEN, 4 }, { "context_init", CONTEXT_INIT, 5 }, { "state_init", STATE_INIT, 3 },
        { "eval", EVAL, 9 },
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(functions[i].name, name) == 0 && functions[i].n == n) {
            *ok = true;
            return library->model->call(functions[i].function, arguments);
        }
    *ok = false;
    return 0;
}
