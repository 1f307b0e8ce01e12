/* Merging: unions of sets of trials, and larger journals. */
#include "records_merge.h"

#include "records_internal.h"

bool records_merge(Records *into, Arena *arena, Diags *diags, Records *from)
{
    Trial *trials;
    Search *searches;
    int n_trials, n_searches;
    if (!records_list(from, arena, diags, NULL, &trials, &n_trials)
        || !records_searches(from, arena, diags, &searches, &n_searches) || !records_begin(into, diags))
        return false;
    bool ok = true;
    for (int i = 0; ok && i < n_searches; i++)
        ok = records_insert_search(into, diags, &searches[i]);
    for (int i = 0; ok && i < n_trials; i++)
        ok = records_insert_trial(into, diags, &trials[i]);
    return records_end(into, diags, ok);
}

bool records_remove(Records *records, Diags *diags, const Trial *const *trials, int n)
{
    if (!records_begin(records, diags))
        return false;
    bool ok = true;
    for (int i = 0; ok && i < n; i++)
        ok = records_finish(records, diags, records_prepare(records, diags, "DELETE FROM trial WHERE id = ?", "t",
                                                            trials[i]->id));
    ok = ok && records_run(records, diags, "DELETE FROM kernel WHERE id NOT IN (SELECT kernel_id FROM trial)");
    if (!records_end(records, diags, ok))
        return false;
    /* What is removed is removed, whether or not there is room to write a shorter file. */
    sqlite3_exec(records->db, "VACUUM", NULL, NULL, NULL);
    return true;
}
