/* Golden tests of the passes: each text beside what one pass must make of it.
 *
 * Input: a folder of NAME.ir, whose first line is `; pass: NAME`, with NAME.expected beside each. Both
 * texts are verified; what is compared is the module after the pass, or the diagnostics.
 */
#include "../../compiler/passes/pass.h"
#include "golden.h"

#include <string.h>

/* The pass's name in the first line; empty when there is none. */
static void pass_name(const char *source, char name[64])
{
    static const char opening[] = "; pass: ";
    name[0] = 0;
    if (strncmp(source, opening, sizeof opening - 1) != 0)
        return;
    source += sizeof opening - 1;
    size_t len = strcspn(source, " \r\n");
    if (len < 64)
        memcpy(name, source, len);
    name[len < 64 ? len : 0] = 0;
}

static void run_pass(const char *file, const Text *source, Text *found)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    char name[64];
    pass_name(source->data, name);
    Module *module = module_parse(arena, diags, file, source->data);
    if (module && module_verify(module, diags)) {
        if (!pass_run_one(module, name))
            text_printf(found, "no pass is called \"%s\"\n", name);
        else if (module_verify(module, diags))
            module_print(module, found);
    }
    diags_print(diags, found);
    arena_free(arena);
}

int main(int argc, char **argv) { return golden_main(argc, argv, "passes_runner", ".ir", run_pass); }
