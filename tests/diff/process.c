/* Processes and files of the differential test.
 *
 * Input: argument lists, paths. Output: exit codes, bytes.
 * Invariant: a program that does not come back is ended by its alarm, which survives exec.
 */
#include "process.h"

#include "../../ir/text.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void args_add(Args *args, const char *arg)
{
    if (args->n == ARGS_MAX)
        BUG("more than %d arguments", ARGS_MAX);
    args->argv[args->n++] = arg;
    args->argv[args->n] = NULL;
}

void args_split(Args *args, Arena *arena, const char *words)
{
    char *copy = arena_strdup(arena, words), *rest = NULL;
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        args_add(args, word);
}

static _Noreturn void become(const Args *args, const char *log_path, unsigned seconds)
{
    int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (log < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
        _exit(127);
    alarm(seconds);
    execvp(args->argv[0], (char *const *)(uintptr_t)args->argv);
    dprintf(log, "%s: %s\n", args->argv[0], strerror(errno));
    _exit(127);
}

int process_run(const Args *args, const char *log_path, unsigned seconds)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        become(args, log_path, seconds);
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return 127;
    return WIFEXITED(status) ? WEXITSTATUS(status) : PROCESS_SIGNALLED + WTERMSIG(status);
}

bool file_write(const char *path, const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return false;
    bool ok = fwrite(bytes, 1, len, file) == len;
    return fclose(file) == 0 && ok;
}

char *file_read(Arena *arena, const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    char *bytes = NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        long end = ftell(file);
        rewind(file);
        *len = end < 0 ? 0 : (size_t)end;
        bytes = arena_alloc(arena, *len + 1);
        if (end < 0 || fread(bytes, 1, *len, file) != *len)
            bytes = NULL;
    }
    fclose(file);
    return bytes;
}

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *at)
{
    (void)stat, (void)kind, (void)at;
    return remove(path);
}

void tree_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
