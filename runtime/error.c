/* Errors of the C interface: a status and one line of words, without allocation.
 *
 * Input: printf's. Output: moss_error, whose message is always NUL-terminated. A message names
 * what was found and what was expected; long paths keep their tail so that both still fit.
 */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int moss_error_set(moss_error *error, moss_status status, const char *format, ...)
{
    if (!error)
        return status;
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    error->status = status;
    return status;
}

moss_path_text moss_path_clip(const char *path)
{
    moss_path_text clipped;
    size_t len = strlen(path), room = sizeof clipped.text - 1;
    if (len <= room)
        snprintf(clipped.text, sizeof clipped.text, "%s", path);
    else
        snprintf(clipped.text, sizeof clipped.text, "...%s", path + len - (room - 3));
    return clipped;
}
