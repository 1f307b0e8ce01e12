/* A module's unit tests: one table, one main.
 *
 * Input: a table of named functions that use CUnit's assertions. Output: CUnit's report and an
 * exit code that is not 0 when an assertion failed.
 */
#ifndef MOSSC_TESTS_UNIT_H
#define MOSSC_TESTS_UNIT_H

#include <CUnit/Basic.h>

#include <string.h>

/* Where tests find models/ and tests/data: the build may set it, else run from the repository. */
#ifndef UNIT_ROOT
#define UNIT_ROOT "."
#endif

typedef struct { const char *name; void (*run)(void); } UnitTest;

static inline int unit_main(const char *suite_name, const UnitTest *tests, int n_tests)
{
    if (CU_initialize_registry() != CUE_SUCCESS)
        return 3;
    CU_pSuite suite = CU_add_suite(suite_name, NULL, NULL);
    for (int i = 0; i < n_tests; i++)
        if (!suite || !CU_add_test(suite, tests[i].name, tests[i].run))
            return 3;
    CU_basic_set_mode(CU_BRM_NORMAL);
    CU_basic_run_tests();
    unsigned failed = CU_get_number_of_failures();
    CU_cleanup_registry();
    return failed != 0;
}

/* Of a program that takes a test's name: that one alone, without a name all, 2 where there is none of that name. */
static inline int unit_main_named(const char *suite_name, const UnitTest *tests, int n_tests, int argc, char **argv)
{
    for (int i = 0; argc > 1 && i < n_tests; i++)
        if (strcmp(argv[1], tests[i].name) == 0)
            return unit_main(suite_name, &tests[i], 1);
    return argc > 1 ? 2 : unit_main(suite_name, tests, n_tests);
}

#define UNIT_MAIN(suite_name, tests)                                                         \
    int main(void) { return unit_main(suite_name, tests, (int)(sizeof(tests) / sizeof(tests)[0])); }

#endif
