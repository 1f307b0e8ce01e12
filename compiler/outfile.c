/* Output files: temporary names, space reserved before it is written, sync, rename. */
#include "outfile.h"

#include "interrupt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool fail(Diags *diags, const char *path, const char *what)
{
    diag_report(diags, DIAG_FILE_WRITE, NULL, "%s: %s: %s", path, what, strerror(errno));
    return false;
}

bool out_folder_make(Arena *arena, Diags *diags, const char *out, OutFolder *folder)
{
    char *path = arena_printf(arena, "%s.building-XXXXXX", out);
    if (!mkdtemp(path))
        return fail(diags, out, "cannot make a temporary folder beside it");
    folder->path = path;
    interrupt_guard(path);
    return true;
}

void out_folder_erase(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        unlinkat(dirfd(dir), entry->d_name, 0);      /* . and .. refuse */
    closedir(dir);
    rmdir(path);
}

void out_folder_remove(const OutFolder *folder)
{
    out_folder_erase(folder->path);
    interrupt_unguard();
}

bool out_may_replace(Diags *diags, const char *out)
{
    struct stat info;
    if (stat(out, &info) != 0 || S_ISREG(info.st_mode))
        return true;
    diag_report(diags, DIAG_FILE_WRITE, NULL, "%s: is %s, which an artifact cannot replace", out,
                S_ISDIR(info.st_mode) ? "a folder" : "no regular file");
    return false;
}

const char *out_folder_file(Arena *arena, const OutFolder *folder, const char *name)
{
    return arena_printf(arena, "%s/%s", folder->path, name);
}

bool out_write(Diags *diags, const char *path, const char *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return fail(diags, path, "cannot create it");
    bool ok = true;
    for (size_t done = 0; ok && done < len;) {
        ssize_t n = write(fd, data + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        ok = n >= 0;
        done += ok ? (size_t)n : 0;
    }
    ok = close(fd) == 0 && ok;
    return ok || fail(diags, path, "cannot write it");
}

uint8_t *out_map(Diags *diags, const char *path, int64_t len)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        fail(diags, path, "cannot create it");
        return NULL;
    }
    /* Reserved first: writing to a mapping on a full disk would be a signal, not an error. */
    errno = posix_fallocate(fd, 0, len);
    void *data = errno ? MAP_FAILED : mmap(NULL, (size_t)len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        fail(diags, path, "cannot reserve its space");
    close(fd);
    return data == MAP_FAILED ? NULL : data;
}

bool out_unmap(Diags *diags, const char *path, uint8_t *data, int64_t len)
{
    bool ok = msync(data, (size_t)len, MS_ASYNC) == 0;
    ok = munmap(data, (size_t)len) == 0 && ok;
    return ok || fail(diags, path, "cannot write it");
}

bool out_replace(Arena *arena, Diags *diags, const char *out, const char *data, size_t len)
{
    struct stat info;
    OutFolder folder;
    if (stat(out, &info) == 0 && !S_ISREG(info.st_mode))
        return out_write(diags, out, data, len);      /* a device or a pipe keeps its name */
    if (!out_folder_make(arena, diags, out, &folder))
        return false;
    const char *path = out_folder_file(arena, &folder, "text");
    bool ok = out_write(diags, path, data, len) && out_publish(diags, path, out);
    out_folder_remove(&folder);
    return ok;
}

bool out_publish(Diags *diags, const char *from, const char *to)
{
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    ok = ok && rename(from, to) == 0;
    return ok || fail(diags, to, "cannot move it into place");
}
