/* Open the weights of the compiled model and answer questions about it.
 *
 * Input: moss_program_data; the embedded weights, a given file, or PROGRAM.weights, where PROGRAM
 * is the executable or library that holds this code. Output: a read-only mapping.
 * Invariant: a model that opened has the program's layout and, when verified, undamaged bytes,
 * and this machine can run its code: moss_model_start sees to that.
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

int32_t moss_mode_top_k(int32_t mode)
{
    if (mode < 0 || mode >= moss_program_data.n_modes)
        return -1;
    return moss_program_data.mode_top_k[mode];
}

static int moss_model_check_program(moss_error *error)
{
    if (moss_program_data.abi == MOSS_ABI)
        return MOSS_OK;
    return moss_error_set(error, MOSS_ERROR_ARGUMENT, "the program has ABI %" PRIu32 ", this runtime expects %d",
                          moss_program_data.abi, MOSS_ABI);
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

int moss_weights_verify(const moss_weights *weights, moss_error *error)
{
    uint64_t found = moss_checksum(weights->data, moss_program_data.weights_len);
    if (found == weights->checksum)
        return MOSS_OK;
    return moss_error_set(error, MOSS_ERROR_WEIGHTS,
        "%s: corrupt: the data have checksum %016" PRIx64 ", expected %016" PRIx64, weights->shown.text, found,
        weights->checksum);
}

/* The header at `block`. as_compiled: of the very weights of the compile, not only of the same model. */
static int moss_weights_check(moss_weights *weights, const uint8_t *block, bool as_compiled, moss_error *error)
{
    moss_weights_header header;
    memcpy(&header, block, sizeof header);
    header.name[sizeof header.name - 1] = 0;
    weights->checksum = header.checksum;
    return moss_model_check_header(&header, weights->shown.text, as_compiled, error);
}

/* `hint`: what to do about it, or "". */
static int moss_model_system_error(const char *path, const char *hint, moss_error *error)
{
    return moss_error_set(error, MOSS_ERROR_SYSTEM, "%s: cannot open the weights: %s%s",
                          moss_path_clip(path).text, strerror(errno), hint);
}

/* Map the file behind `fd`; a file too short for its header is told here, other lengths later. */
static int moss_weights_map(moss_weights *weights, int fd, const char *path, moss_error *error)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return moss_model_system_error(path, "", error);
    if (!S_ISREG(info.st_mode))
        return moss_error_set(error, MOSS_ERROR_WEIGHTS, "%s: not a regular file", weights->shown.text);
    if (info.st_size < MOSS_WEIGHTS_HEADER_LEN)
        return moss_error_set(error, MOSS_ERROR_WEIGHTS,
            "%s: truncated: %jd bytes, expected a header of %d", weights->shown.text, (intmax_t)info.st_size,
            MOSS_WEIGHTS_HEADER_LEN);
    void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return moss_model_system_error(path, "", error);
    madvise(map, (size_t)info.st_size, MADV_WILLNEED);   /* advice: failing changes nothing */
    weights->map = map;
    weights->map_len = (size_t)info.st_size;
    weights->data = (const uint8_t *)map + MOSS_WEIGHTS_HEADER_LEN;
    return MOSS_OK;
}

/* Magic and hash come before the length, so that a foreign file is called foreign, not long;
 * the length comes before the data, so that nothing past the end is read. */
static int moss_weights_check_map(moss_weights *weights, bool as_compiled, moss_error *error)
{
    const uint64_t expected = MOSS_WEIGHTS_HEADER_LEN + moss_program_data.weights_len;
    int status = moss_weights_check(weights, weights->map, as_compiled, error);
    if (status == MOSS_OK && weights->map_len != expected)
        return moss_error_set(error, MOSS_ERROR_WEIGHTS, "%s: %s: %zu bytes, expected %" PRIu64, weights->shown.text,
            weights->map_len < expected ? "truncated" : "too long", weights->map_len, expected);
    return status;
}

static int moss_weights_open_file(moss_weights *weights, const char *path, bool as_compiled, moss_error *error)
{
    static const char beside[] = "; they belong beside the file that holds this code, else name them"
                                 " to moss_model_open (a program: -m)";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return moss_model_system_error(path, as_compiled ? beside : "", error);
    weights->shown = moss_path_clip(path);
    int status = moss_weights_map(weights, fd, path, error);
    close(fd);   /* the mapping stays */
    return status == MOSS_OK ? moss_weights_check_map(weights, as_compiled, error) : status;
}

static int moss_weights_open(moss_weights *weights, const char *path, moss_error *error)
{
    const uint8_t *embedded = moss_program_data.embedded_weights;
    if (path)
        return moss_weights_open_file(weights, path, false, error);
    if (embedded) {
        weights->data = embedded + MOSS_WEIGHTS_HEADER_LEN;
        weights->shown = moss_path_clip("embedded weights");
        return moss_weights_check(weights, embedded, true, error);
    }
    char beside[PATH_MAX];
    int status = moss_model_default_path(beside, error);
    return status == MOSS_OK ? moss_weights_open_file(weights, beside, true, error) : status;
}

void moss_weights_close(moss_weights *weights)
{
    if (weights->map)
        munmap(weights->map, weights->map_len);
    memset(weights, 0, sizeof *weights);
}

int moss_model_open_sized(moss_model *model, const char *weights_path, int verify, int32_t n_states,
                          int64_t n_context, moss_error *error)
{
    if (!model)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "model is NULL");
    memset(model, 0, moss_model_len());
    if (n_states < 1 || moss_state_len(n_context) == 0)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_states is %d and n_context %" PRId64
                              ", expected at least 1 and 0", n_states, n_context);
    int status = moss_model_check_program(error);
    if (status == MOSS_OK)
        status = moss_weights_open(&model->weights, weights_path, error);
    if (status == MOSS_OK)
        status = moss_model_start(model, verify, n_states, n_context, error);
    if (status != MOSS_OK)
        moss_model_close(model);
    return status;
}

int moss_model_open(moss_model *model, const char *weights_path, int verify, moss_error *error)
{
    enum { N_STATES = 16 };
    return moss_model_open_sized(model, weights_path, verify, N_STATES, 0, error);
}

void moss_model_close(moss_model *model)
{
    if (!model)
        return;
    moss_model_stop(model);
    moss_weights_close(&model->weights);
}
