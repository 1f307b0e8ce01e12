/* Exports: the linker's version script of a shared library, from api.def.
 *
 * The node's number is that of the interface: a function that joins later goes into a node of its own, so that a
 * program which needs it is refused by an older library when it is loaded.
 */
#include "codegen.h"

#include <ctype.h>

void codegen_write_exports(const char *prefix, Text *out)
{
    for (const char *c = prefix; *c; c++)
        text_printf(out, "%c", toupper((unsigned char)*c));
    text_printf(out, "_1 {\n  global:\n");
#define API(name, result, arguments) text_printf(out, "    %s_%s;\n", prefix, #name);
#include "api.def"
    text_printf(out, "  local: *;\n};\n");
}
