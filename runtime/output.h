/* A binary file that appears whole or not at all.
 *
 * Bytes go to a temporary file beside the target; moss_output_finish syncs and renames it.
 * A target that exists and is no regular file (a pipe, a device) is written directly.
 */
#ifndef MOSS_OUTPUT_H
#define MOSS_OUTPUT_H

#include "cli.h"

typedef struct {
    const moss_args *args;
    const char *path;
    char *temporary;     /* NULL: written directly */
    int fd;
} moss_output;

int moss_output_open(moss_output *output, const moss_args *args, const char *path);
int moss_output_write(moss_output *output, const void *data, size_t len);
int moss_output_finish(moss_output *output);
void moss_output_abandon(moss_output *output);   /* nothing is left; harmless after finish */

#endif
