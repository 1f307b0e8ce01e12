/* Write a file under a temporary name, sync it, rename it.
 *
 * Input: bytes. Output: the file, or one message and nothing left behind.
 */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int moss_output_fail(moss_output *output, const char *what)
{
    int code = moss_cli_fail(output->args, MOSS_EXIT_SYSTEM, "%s: cannot %s: %s", output->path,
                             what, strerror(errno));
    moss_output_abandon(output);
    return code;
}

int moss_output_open(moss_output *output, const moss_args *args, const char *path)
{
    struct stat info;
    *output = (moss_output){ .args = args, .path = path, .fd = -1 };
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        output->fd = open(path, O_WRONLY | O_CLOEXEC);
    } else {
        if (asprintf(&output->temporary, "%s.%ld.tmp", path, (long)getpid()) < 0)
            output->temporary = NULL, errno = ENOMEM;
        else
            output->fd = open(output->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    }
    return output->fd < 0 ? moss_output_fail(output, "open") : MOSS_EXIT_OK;
}

int moss_output_write(moss_output *output, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t n = write(output->fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return moss_output_fail(output, "write");
        at += n;
        len -= (size_t)n;
    }
    return MOSS_EXIT_OK;
}

int moss_output_finish(moss_output *output)
{
    if (output->temporary && fsync(output->fd) != 0)
        return moss_output_fail(output, "write");
    int failed = close(output->fd);
    output->fd = -1;
    if (failed)
        return moss_output_fail(output, "write");
    if (output->temporary && rename(output->temporary, output->path) != 0)
        return moss_output_fail(output, "rename the finished file to it");
    free(output->temporary);
    output->temporary = NULL;
    return MOSS_EXIT_OK;
}

void moss_output_abandon(moss_output *output)
{
    if (output->fd >= 0)
        close(output->fd);
    if (output->temporary)
        unlink(output->temporary);
    free(output->temporary);
    output->temporary = NULL;
    output->fd = -1;
}
