/* Android: from a laptop to a phone without an NDK.
 *
 * A program is static, with musl, since it need not know the phone's C library. A library lives in an app's process and
 * uses that library: bionic's, of which runtime/bionic.h and bionic.def tell as much as the runtime takes. An NDK's
 * compiler, given with --cc, brings headers and libraries itself. Segments lie 16 KiB apart: phones with such pages
 * load nothing else.
 */
#include "android.h"

#include <glob.h>
#include <string.h>
#include <unistd.h>

#define MUSL "/usr/lib/aarch64-linux-musl/"
#define PAGES "-Wl,-z,max-page-size=16384 -Wl,-z,common-page-size=16384 "

static bool is_kind(const char *kind, const char *name) { return strcmp(kind, name) == 0; }

/* What GNU's or LLVM's compiler keeps for functions that a processor lacks; NULL: not there. */
static const char *find_libgcc(Arena *arena)
{
    static const char *const places[] = {
        "/usr/lib/gcc-cross/aarch64-linux-gnu/*/libgcc.a", "/usr/lib/gcc/aarch64-linux-gnu/*/libgcc.a",
        "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.builtins-aarch64.a",
    };
    const char *found = NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places && !found; i++) {
        glob_t paths;
        if (glob(places[i], 0, NULL, &paths) != 0)
            continue;
        found = arena_strndup(arena, paths.gl_pathv[0], strlen(paths.gl_pathv[0]));
        globfree(&paths);
    }
    return found;
}

static const char *find_program(Arena *arena, const char *first, const char *second)
{
    return toolchain_has(arena, first) ? first : toolchain_has(arena, second) ? second : NULL;
}

/* All that is missing at once, as packages of Debian. */
static bool report_missing(Arena *arena, Diags *diags, const char *kind, const char *clang, const char *lld, bool musl,
                           const char *libgcc)
{
    bool exe = is_kind(kind, "exe");
    const char *packages = arena_printf(arena, "%s%s%s%s", clang ? "" : " clang-19", lld ? "" : " lld-19",
                                        !exe || musl ? "" : " musl-dev:arm64",
                                        !exe || libgcc ? "" : " gcc-aarch64-linux-gnu");
    if (!*packages)
        return false;
    diag_report(diags, DIAG_TOOLCHAIN, NULL, "android-arm64, --emit %s: these Debian packages are missing:%s", kind,
                packages);
    if (exe && !musl)
        diag_note(diags, NULL, "musl-dev:arm64 is of another architecture, which apt must know first: "
                  "dpkg --add-architecture arm64 && apt-get update%s", "");
    diag_note(diags, NULL, "or name an NDK's compiler: --cc .../toolchains/llvm/prebuilt/linux-x86_64/bin/"
              "aarch64-linux-android24-clang%s", "");
    return true;
}

bool android_find(Arena *arena, Diags *diags, TargetId target, const char *kind, const char *wanted,
                  AndroidTools *tools, ToolCommand *cc)
{
    bool exe = is_kind(kind, "exe");
    *tools = (AndroidTools){ .given = wanted != NULL, .bionic = !wanted && !exe };
    if (wanted)
        return toolchain_find(arena, diags, target, wanted, cc);
    const char *clang = find_program(arena, "clang-19", "clang"), *lld = find_program(arena, "ld.lld-19", "ld.lld");
    tools->libgcc = find_libgcc(arena);
    if (report_missing(arena, diags, kind, clang, lld, access(MUSL "crt1.o", R_OK) == 0, tools->libgcc))
        return false;
    *cc = (ToolCommand){ 0 };
    tool_add(cc, clang);
    tool_add(cc, exe ? "--target=aarch64-linux-musl" : "--target=aarch64-linux-android21");
    return true;
}

const char *android_compile_flags(const AndroidTools *tools)
{
    /* Atomics in place: the helpers that choose among them at run time are libgcc's. */
    return tools->given ? "-ffunction-sections -fdata-sections"
         : tools->bionic ? "-ffunction-sections -fdata-sections -nostdlibinc -mno-outline-atomics"
                         : "-ffunction-sections -fdata-sections -mno-outline-atomics -nostdlibinc "
                           "-isystem /usr/include/aarch64-linux-musl";
}

static void begin_library(Arena *arena, const AndroidTools *tools, const char *folder, const char *out,
                          ToolCommand *command)
{
    const char *slash = strrchr(out, '/');
    tool_add_words(arena, command, "-shared -s -Wl,--build-id=sha1 " PAGES "-Wl,-z,defs -Wl,-z,noexecstack "
                                   "-Wl,-z,relro -Wl,-z,text -Wl,--hash-style=both -Wl,--gc-sections -Wl,--as-needed");
    /* Much of the code is the same for all CPUs: one copy will do, since no address of a function is compared. */
    if (!tools->given)
        tool_add_words(arena, command, "-nostdlib -fuse-ld=lld -Wl,--icf=all");
    tool_add_words(arena, command, "-Xlinker -soname -Xlinker");
    tool_add(command, slash ? slash + 1 : out);
    tool_add_words(arena, command, "-Xlinker --version-script -Xlinker");
    tool_add(command, arena_printf(arena, "%s/exports.map", folder));
}

void android_link_begin(Arena *arena, const AndroidTools *tools, const char *kind, const char *folder, const char *out,
                        ToolCommand *command)
{
    if (is_kind(kind, "lib")) {
        begin_library(arena, tools, folder, out, command);
        return;
    }
    tool_add_words(arena, command, "-static -s " PAGES "-Wl,-z,noexecstack -Wl,--gc-sections");
    if (!tools->given)
        tool_add_words(arena, command, "-nostdlib -fuse-ld=lld -Wl,--icf=all " MUSL "crt1.o " MUSL "crti.o");
}

void android_link_end(Arena *arena, const AndroidTools *tools, const char *kind, const char *folder,
                      ToolCommand *command)
{
    if (tools->given) {
        tool_add_words(arena, command, "-pthread -lm");
    } else if (is_kind(kind, "lib")) {
        tool_add(command, arena_printf(arena, "%s/libm.so", folder));
        tool_add(command, arena_printf(arena, "%s/libc.so", folder));
    } else {
        tool_add(command, MUSL "libc.a");
        tool_add(command, tools->libgcc);
        tool_add(command, MUSL "libc.a");
        tool_add(command, MUSL "crtn.o");
    }
}
