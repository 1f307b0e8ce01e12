/* A plugin for qemu-user: counts the instructions that each function of the emulated program executes.
 *
 *   qemu-aarch64 -plugin count_functions.so,out=FILE PROGRAM ...
 * At exit FILE has a line "instructions function" for each function, calls not included; code without a symbol is
 * "?". A program with one thread is counted exactly. The declarations are those of qemu's plugin interface,
 * version 1, which Debian ships no header for.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t PluginId;
typedef struct qemu_plugin_tb Block;
typedef struct qemu_plugin_insn Instruction;
void qemu_plugin_register_vcpu_tb_trans_cb(PluginId id, void (*on_block)(PluginId id, Block *block));
void qemu_plugin_register_vcpu_tb_exec_inline(Block *block, int op, void *counter, uint64_t added);
void qemu_plugin_register_atexit_cb(PluginId id, void (*on_exit)(PluginId id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const Block *block);
Instruction *qemu_plugin_tb_get_insn(const Block *block, size_t index);
const char *qemu_plugin_insn_symbol(const Instruction *instruction);

enum { ADD_U64 = 0, MOST_FUNCTIONS = 8192, NAME_LEN = 160 };

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static struct {
    char name[NAME_LEN];
    uint64_t instructions;
} functions[MOST_FUNCTIONS];
static int n_functions;
static char path[4096];

/* The function's counter; those that find no place share the last. */
static uint64_t *counter_of(const char *name)
{
    int i = 0;
    while (i < n_functions && strncmp(functions[i].name, name, NAME_LEN - 1) != 0)
        i++;
    if (i == n_functions && n_functions < MOST_FUNCTIONS)
        snprintf(functions[n_functions++].name, NAME_LEN, "%s", name);
    return &functions[i < MOST_FUNCTIONS ? i : MOST_FUNCTIONS - 1].instructions;
}

/* A block of code was translated: whenever it runs, add its length. It may run from one function into the next. */
static void on_block(PluginId id, Block *block)
{
    (void)id;
    const size_t n = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0, same; i < n; i += same) {
        const char *name = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(block, i));
        for (same = 1; i + same < n; same++)
            if (qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(block, i + same)) != name)
                break;
        qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, counter_of(name ? name : "?"), same);
    }
}

static void on_exit(PluginId id, void *data)
{
    (void)id, (void)data;
    FILE *file = fopen(path, "w");
    for (int i = 0; file && i < n_functions; i++)
        fprintf(file, "%llu %s\n", (unsigned long long)functions[i].instructions, functions[i].name);
    if (!file || fclose(file) != 0)
        perror(path);
}

__attribute__((visibility("default"))) int qemu_plugin_install(PluginId id, const void *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || strlen(argv[0]) >= sizeof path)
        return fprintf(stderr, "count_functions: expected out=FILE\n"), 1;
    strcpy(path, argv[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_atexit_cb(id, on_exit, NULL);
    return 0;
}
