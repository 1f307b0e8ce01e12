/* Planned names, from planned.def. */
#include "planned.h"

#include <string.h>

static const struct { PlannedKind kind; const char *name, *meanwhile; } rows[] = {
#define PLANNED(kind, name, meanwhile) { PLANNED_##kind, name, meanwhile },
#include "planned.def"
#undef PLANNED
};

bool planned_report(Diags *diags, PlannedKind kind, const char *name)
{
    static const char *const words[] = { "command", "option", "target", "--emit" };
    size_t len = strcspn(name, "=");      /* of --name=value */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].kind != kind || strlen(rows[i].name) != len || strncmp(rows[i].name, name, len) != 0)
            continue;
        diag_report(diags, DIAG_USAGE, NULL, "%s `%s` is not there yet: %s", words[kind], rows[i].name, rows[i].meanwhile);
        return true;
    }
    return false;
}
