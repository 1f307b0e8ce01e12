/* Checks of names and places, for the driver and the artifact writer. */
#include "checks.h"

#include <ctype.h>
#include <string.h>
#include <sys/stat.h>

/* Of C17 and C++20, for the header is both. */
static const char *const keywords[] = {
    "alignas", "alignof", "and", "and_eq", "asm", "auto", "bitand", "bitor", "bool", "break", "case", "catch", "char",
    "char8_t", "char16_t", "char32_t", "class", "co_await", "co_return", "co_yield", "compl", "concept", "const",
    "const_cast", "consteval", "constexpr", "constinit", "continue", "decltype", "default", "delete", "do", "double",
    "dynamic_cast", "else", "enum", "explicit", "export", "extern", "false", "float", "for", "friend", "goto", "if",
    "inline", "int", "long", "mutable", "namespace", "new", "noexcept", "not", "not_eq", "nullptr", "operator", "or",
    "or_eq", "private", "protected", "public", "register", "reinterpret_cast", "requires", "restrict", "return", "short",
    "signed", "sizeof", "static", "static_assert", "static_cast", "struct", "switch", "template", "this", "thread_local",
    "throw", "true", "try", "typedef", "typeid", "typename", "union", "unsigned", "using", "virtual", "void", "volatile",
    "wchar_t", "while", "xor", "xor_eq",
};

/* Names that begin with _ belong to the C implementation, once in capitals all of them. */
static bool is_name(const char *text)
{
    if (!isalpha((unsigned char)*text))
        return false;
    while (isalnum((unsigned char)*text) || *text == '_')
        text++;
    return !*text;
}

bool check_prefix(Diags *diags, const char *prefix)
{
    enum { MOST = 32 };      /* linkers and readers take more, but not gladly */
    if (!prefix)
        return true;
    bool keyword = false;
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        keyword = keyword || strcmp(prefix, keywords[i]) == 0;
    if (keyword)
        diag_report(diags, DIAG_USAGE, NULL, "`--prefix %s`: is a keyword of C or C++", prefix);
    else if (!is_name(prefix) || strlen(prefix) > MOST)
        diag_report(diags, DIAG_USAGE, NULL, "`--prefix %.60s`: expected a C identifier of up to %d characters that begins "
                    "with a letter", prefix, MOST);
    else
        return true;
    return false;
}

bool check_not_input(Diags *diags, const char *out, const char *input)
{
    struct stat a, b;
    if (!input || stat(out, &a) != 0 || stat(input, &b) != 0 || !S_ISREG(a.st_mode) || a.st_dev != b.st_dev
        || a.st_ino != b.st_ino)
        return true;
    diag_report(diags, DIAG_USAGE, NULL, "%s would be replaced, and is an input: choose another OUT", out);
    return false;
}
