/* Safetensors, written: u64 length, JSON header, then the data as a stream.
 *
 * Input: entries, then bytes. Output: a file that safetensors_read accepts.
 * Invariant: the header is padded with spaces so that data start at a multiple of 8 bytes, which
 * readers that map the file like; a file that is closed without an error has all its data.
 */
#include "safetensors_write.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct SafetensorsWriter {
    Diags *diags;
    const char *path;
    int fd;
    int64_t left;       /* bytes of data still to come */
};

int64_t safetensors_entry_len(const SafetensorsEntry *entry)
{
    int64_t len = dtype_len(entry->dtype);
    for (int axis = 0; axis < entry->rank; axis++)
        len *= entry->shape[axis];
    return len;
}

static void put_entry(Text *json, const SafetensorsEntry *entry, int64_t begin)
{
    text_json_string(json, entry->name);
    text_printf(json, ":{\"dtype\":\"%s\",\"shape\":[", dtype_info(entry->dtype)->safetensors);
    for (int axis = 0; axis < entry->rank; axis++)
        text_printf(json, "%s%lld", axis ? "," : "", (long long)entry->shape[axis]);
    text_printf(json, "],\"data_offsets\":[%lld,%lld]}", (long long)begin,
                (long long)(begin + safetensors_entry_len(entry)));
}

void safetensors_put_header(Text *out, const SafetensorsEntry *entries, int n_entries)
{
    Text json = { 0 };
    int64_t begin = 0;
    text_printf(&json, "{");
    for (int i = 0; i < n_entries; begin += safetensors_entry_len(&entries[i++])) {
        text_append(&json, ",", i > 0);
        put_entry(&json, &entries[i], begin);
    }
    text_printf(&json, "}");
    while (json.len % 8)
        text_append(&json, " ", 1);
    for (int i = 0; i < 8; i++) {
        char byte = (char)((uint64_t)json.len >> 8 * i);
        text_append(out, &byte, 1);
    }
    text_append(out, json.data, json.len);
    text_free(&json);
}

static bool fail(SafetensorsWriter *writer, const char *what)
{
    diag_report(writer->diags, DIAG_FILE_WRITE, NULL, "%s: %s: %s", writer->path, what, strerror(errno));
    return false;
}

static bool write_all(SafetensorsWriter *writer, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(writer->fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(writer, "cannot write it");
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

/* Reserved first, so that a disk too small is told before an hour of copying. A file system that
 * cannot reserve is no reason to stop. */
static bool reserve(SafetensorsWriter *writer, int64_t len)
{
    errno = posix_fallocate(writer->fd, 0, len);
    return errno == 0 || errno == EOPNOTSUPP || errno == EINVAL || fail(writer, "cannot reserve its space");
}

static bool begin(SafetensorsWriter *writer, const Text *header)
{
    writer->fd = open(writer->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (writer->fd < 0)
        return fail(writer, "cannot create it");
    if (reserve(writer, (int64_t)header->len + writer->left) && write_all(writer, header->data, header->len))
        return true;
    close(writer->fd);
    return false;
}

SafetensorsWriter *safetensors_write_open(Arena *arena, Diags *diags, const char *path, const SafetensorsEntry *entries,
                                          int n_entries)
{
    Text header = { 0 };
    SafetensorsWriter *writer = arena_one(arena, SafetensorsWriter);
    *writer = (SafetensorsWriter){ .diags = diags, .path = arena_strdup(arena, path), .fd = -1 };
    safetensors_put_header(&header, entries, n_entries);
    for (int i = 0; i < n_entries; i++)
        writer->left += safetensors_entry_len(&entries[i]);
    bool good = begin(writer, &header);
    text_free(&header);
    return good ? writer : NULL;
}

bool safetensors_write_bytes(SafetensorsWriter *writer, const void *bytes, size_t len)
{
    if ((int64_t)len > writer->left)
        BUG("%s: %zu bytes where %lld are left", writer->path, len, (long long)writer->left);
    writer->left -= (int64_t)len;
    return write_all(writer, bytes, len);
}

bool safetensors_write_close(SafetensorsWriter *writer, bool abandoned)
{
    if (!abandoned && writer->left)
        BUG("%s: %lld bytes never came", writer->path, (long long)writer->left);
    return close(writer->fd) == 0 || fail(writer, "cannot write it");
}
