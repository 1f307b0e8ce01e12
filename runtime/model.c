/* Open the weights of the compiled model and answer questions about it.
 *
 * Input: moss_program_data; the embedded weights, a given file, or PROGRAM.weights, where PROGRAM
 * is the executable or library that holds this code. Output: a read-only mapping.
 * Invariant: a model that opened has the program's layout and, when verified, undamaged bytes,
 * and this CPU can run its code. The verifying pass also brings the pages into memory.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "weights files are little-endian");
_Static_assert(sizeof(moss_weights_header) <= MOSS_WEIGHTS_HEADER_LEN, "the header fits");

const char *moss_name(void) { return moss_program_data.name; }
const char *moss_manifest(void) { return moss_program_data.manifest; }
int32_t moss_vocab_size(void) { return moss_program_data.vocab_size; }
int32_t moss_n_modes(void) { return moss_program_data.n_modes; }
size_t moss_model_len(void) { return sizeof(moss_model); }

int32_t moss_mode_top_k(int32_t mode)
{
    if (mode < 0 || mode >= moss_program_data.n_modes)
        return -1;
    return moss_program_data.mode_top_k[mode];
}

static int moss_model_check_program(moss_error *error)
{
    const moss_program *program = &moss_program_data;
    int len;
    if (program->abi != MOSS_ABI)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT,
            "the program has ABI %" PRIu32 ", this runtime expects %d", program->abi, MOSS_ABI);
    const char *missing = moss_cpu_missing(program->features, &len);
    if (missing)
        return moss_error_set(error, MOSS_ERROR_CPU,
            "compiled for %s, which needs %s; this CPU or its system lacks %.*s",
            program->target, program->features, len, missing);
    return MOSS_OK;
}

/* The file that holds this code, from the kernel's list of mappings: unlike argv[0] or dladdr it
 * is absolute, and one way serves executables and libraries. false: the list does not tell. */
static bool moss_model_program_path(char path[PATH_MAX])
{
    const uintptr_t here = (uintptr_t)&moss_program_data;
    FILE *maps = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    while (maps && !found && getline(&line, &room, maps) > 0) {
        uintptr_t from, to;
        int at = 0;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %*s %n", &from, &to, &at) < 2
            || at == 0 || line[at] != '/' || here < from || here >= to)
            continue;
        line[at + (int)strcspn(line + at, "\n")] = 0;
        found = snprintf(path, PATH_MAX, "%s", line + at) < PATH_MAX;
    }
    free(line);
    if (maps)
        fclose(maps);
    return found;
}

static int moss_model_default_path(char path[PATH_MAX], moss_error *error)
{
    static const char suffix[] = ".weights";
    if (!moss_model_program_path(path))
        return moss_error_set(error, MOSS_ERROR_SYSTEM,
            "/proc/self/maps does not name the program's file; give the path of the weights");
    if (strlen(path) + sizeof suffix > PATH_MAX)
        return moss_error_set(error, MOSS_ERROR_SYSTEM, "the program's path is too long: %s",
                              moss_path_clip(path).text);
    memcpy(path + strlen(path), suffix, sizeof suffix);
    return MOSS_OK;
}

/* Does the header belong to this program? `path` names it in messages. */
static int moss_model_check_header(const moss_weights_header *header, const char *path,
                                   bool as_compiled, moss_error *error)
{
    const moss_program *program = &moss_program_data;
    if (memcmp(header->magic, MOSS_WEIGHTS_MAGIC, sizeof header->magic))
        return moss_error_set(error, MOSS_ERROR_WEIGHTS,
            "%s: not a weights file: its first 8 bytes are not %s", path, MOSS_WEIGHTS_MAGIC);
    if (header->abi != MOSS_ABI)
        return moss_error_set(error, MOSS_ERROR_WEIGHTS,
            "%s: weights of ABI %" PRIu32 ", expected %d", path, header->abi, MOSS_ABI);
    if (header->model_hash != program->model_hash)
        return moss_error_set(error, MOSS_ERROR_WEIGHTS,
            "%s: weights of %.31s (%016" PRIx64 "), expected %.31s (%016" PRIx64 ")", path,
            header->name, header->model_hash, program->name, program->model_hash);
    if (header->data_len != program->weights_len)
        return moss_error_set(error, MOSS_ERROR_WEIGHTS,
            "%s: header says %" PRIu64 " bytes of data, expected %" PRIu64, path,
            header->data_len, program->weights_len);
    if (as_compiled && program->weights_checksum && header->checksum != program->weights_checksum)
        return moss_error_set(error, MOSS_ERROR_WEIGHTS,
            "%s: weights of another compile (checksum %016" PRIx64 "), expected %016" PRIx64, path,
            header->checksum, program->weights_checksum);
    return MOSS_OK;
}

static int moss_model_check_data(const moss_weights_header *header, const uint8_t *data,
                                 const char *path, moss_error *error)
{
    uint64_t found = moss_checksum(data, header->data_len);
    if (found == header->checksum)
        return MOSS_OK;
    return moss_error_set(error, MOSS_ERROR_WEIGHTS,
        "%s: corrupt: the data have checksum %016" PRIx64 ", expected %016" PRIx64, path, found,
        header->checksum);
}

/* Header and data at `block`. as_compiled: they must be the very weights of the compile, not only
 * weights of the same model. */
static int moss_model_check(const uint8_t *block, const char *path, bool as_compiled, int verify,
                            moss_error *error)
{
    moss_weights_header header;
    memcpy(&header, block, sizeof header);
    header.name[sizeof header.name - 1] = 0;
    int status = moss_model_check_header(&header, path, as_compiled, error);
    if (status == MOSS_OK && verify)
        status = moss_model_check_data(&header, block + MOSS_WEIGHTS_HEADER_LEN, path, error);
    return status;
}

/* `hint`: what to do about it, or "". */
static int moss_model_system_error(const char *path, const char *hint, moss_error *error)
{
    return moss_error_set(error, MOSS_ERROR_SYSTEM, "%s: cannot open the weights: %s%s",
                          moss_path_clip(path).text, strerror(errno), hint);
}

/* Map the file behind `fd`; a file too short for its header is told here, other lengths later. */
static int moss_model_map_fd(moss_model *model, int fd, const char *path, moss_error *error)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return moss_model_system_error(path, "", error);
    if (!S_ISREG(info.st_mode))
        return moss_error_set(error, MOSS_ERROR_WEIGHTS, "%s: not a regular file",
                              moss_path_clip(path).text);
    if (info.st_size < MOSS_WEIGHTS_HEADER_LEN)
        return moss_error_set(error, MOSS_ERROR_WEIGHTS,
            "%s: truncated: %jd bytes, expected a header of %d", moss_path_clip(path).text,
            (intmax_t)info.st_size, MOSS_WEIGHTS_HEADER_LEN);
    void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return moss_model_system_error(path, "", error);
    madvise(map, (size_t)info.st_size, MADV_WILLNEED);   /* advice: failing changes nothing */
    model->map = map;
    model->map_len = (size_t)info.st_size;
    model->weights = (const uint8_t *)map + MOSS_WEIGHTS_HEADER_LEN;
    return MOSS_OK;
}

/* Magic and hash come before the length, so that a foreign file is called foreign, not long;
 * the length comes before the data, so that nothing past the end is read. */
static int moss_model_check_map(const moss_model *model, const char *path, bool as_compiled,
                                int verify, moss_error *error)
{
    const moss_path_text shown = moss_path_clip(path);
    const uint64_t expected = MOSS_WEIGHTS_HEADER_LEN + moss_program_data.weights_len;
    int status = moss_model_check(model->map, shown.text, as_compiled, 0, error);
    if (status != MOSS_OK)
        return status;
    if (model->map_len != expected)
        return moss_error_set(error, MOSS_ERROR_WEIGHTS, "%s: %s: %zu bytes, expected %" PRIu64,
            shown.text, model->map_len < expected ? "truncated" : "too long", model->map_len,
            expected);
    return verify ? moss_model_check(model->map, shown.text, as_compiled, 1, error) : MOSS_OK;
}

static int moss_model_open_file(moss_model *model, const char *path, bool as_compiled, int verify,
                                moss_error *error)
{
    static const char beside[] = "; they belong beside the file that holds this code, else name them"
                                 " to moss_model_open (a program: -m)";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return moss_model_system_error(path, as_compiled ? beside : "", error);
    int status = moss_model_map_fd(model, fd, path, error);
    close(fd);   /* the mapping stays */
    if (status == MOSS_OK)
        status = moss_model_check_map(model, path, as_compiled, verify, error);
    return status;
}

static int moss_model_open_default(moss_model *model, int verify, moss_error *error)
{
    const uint8_t *embedded = moss_program_data.embedded_weights;
    if (embedded) {
        model->weights = embedded + MOSS_WEIGHTS_HEADER_LEN;
        return moss_model_check(embedded, "embedded weights", true, verify, error);
    }
    char path[PATH_MAX];
    int status = moss_model_default_path(path, error);
    return status == MOSS_OK ? moss_model_open_file(model, path, true, verify, error) : status;
}

int moss_model_open(moss_model *model, const char *weights_path, int verify, moss_error *error)
{
    if (!model)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "model is NULL");
    memset(model, 0, sizeof *model);
    int status = moss_model_check_program(error);
    if (status == MOSS_OK)
        status = weights_path ? moss_model_open_file(model, weights_path, false, verify, error)
                              : moss_model_open_default(model, verify, error);
    if (status != MOSS_OK)
        moss_model_close(model);
    return status;
}

void moss_model_close(moss_model *model)
{
    if (model && model->map)
        munmap(model->map, model->map_len);
    if (model)
        memset(model, 0, sizeof *model);
}
