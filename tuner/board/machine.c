/* Machine: which processors a board has, as lines of /proc/cpuinfo.
 *
 * The kernel's own where it has them, so that a board is the same device whether it is asked from afar or tunes
 * itself. On 64-bit ARM else from the register that says so, which the kernel lets programs read: an emulator's /proc
 * is that of the machine below it.
 */
#include "board.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef void Say(const char *format, ...);

/* Lines whose names begin so; false: the file has no line of the last name. */
static bool say_lines(Say *say, const char *const *names, int n)
{
    char line[1024];
    bool found = false;
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file))
        for (int i = 0; i < n; i++) {
            const size_t len = strlen(names[i]);
            if (strncmp(line, names[i], len) != 0 || line[len + strspn(line + len, " \t")] != ':')
                continue;
            line[strcspn(line, "\n")] = '\0';
            found |= i == n - 1;
            if (say)
                say("cpu %s", line);
        }
    if (file)
        fclose(file);
    return found;
}

#if defined __aarch64__
#include <sys/auxv.h>

enum { HAS_CPUID = 1 << 11 };    /* AT_HWCAP: the kernel lets programs read the registers that identify a CPU */

void board_say_machine(Say *say)
{
    static const char *const arm[] = { "processor", "CPU implementer", "CPU part" }, *const x86[] = { "vendor_id" };
    uint64_t midr = 0;
    if (say_lines(NULL, arm, 3)) {
        say_lines(say, arm, 3);
        return;
    }
    if (getauxval(AT_HWCAP) & HAS_CPUID)
        __asm__("mrs %0, midr_el1" : "=r"(midr));
    const long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    for (long i = 0; i < (n_cpus > 0 ? n_cpus : 1); i++) {
        say("cpu processor : %ld", i);
        say("cpu CPU implementer : 0x%02x", (unsigned)(midr >> 24 & 0xFF));
        say("cpu CPU part : 0x%03x", (unsigned)(midr >> 4 & 0xFFF));
    }
    if (say_lines(NULL, x86, 1))
        say("emulated");
}

#else

void board_say_machine(Say *say)
{
    static const char *const x86[] = { "processor", "cpu family", "model", "stepping", "model name" };
    say_lines(say, x86, 5);
}
#endif
