/* Runner call: one program, started by the command, and what it says.
 *
 * Its end is that of its process, not of its pipes: it may leave somebody behind who holds them. It may be silent for
 * `patience` seconds; a line of its own (board/board.h) ends the silence, anything else does not. A command that has
 * said all and does not end is ended.
 */
#include "runner_internal.h"

#include "../compiler/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_JUNK = 8 << 20, POLL_MS = 20, END_SECONDS = 3, SHOWN = 120, LINE_ROOM = 8192, WORDS_ROOM = 600 };

typedef struct {
    const RunnerProgram *program;
    RunnerSaid *said;
    int out, err;                /* ends of pipes; -1: closed */
    char line[LINE_ROOM];        /* [line_len] of `out`, not yet whole */
    char words[WORDS_ROOM];      /* [words_len] the end of `err` */
    size_t line_len, words_len;
    long junk;                   /* bytes that are no lines of the program */
    bool hello, ended, garbled;
    double heard;                /* when a line came last */
    char first_junk[SHOWN];
} Listener;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- lines ---- */

static bool take_pairs(const char *words, RunnerSaid *said)
{
    char *at;
    long i = strtol(words, &at, 10), n = strtol(at, &at, 10);
    if (i < 0 || i >= BOARD_MAX_PAIRS || n < 0 || n > DECIDE_MOST_PAIRS)
        return false;
    TrialPairs *pairs = &said->pairs[i];
    for (pairs->n = 0; pairs->n < n; pairs->n++) {
        double candidate = strtod(at, &at), incumbent = strtod(at, &at);
        if (!(candidate > 0 && incumbent > 0 && candidate < 1e6 && incumbent < 1e6))
            return false;
        pairs->candidate[pairs->n] = candidate;
        pairs->incumbent[pairs->n] = incumbent;
    }
    return *at == '\0';
}

static bool take_ceilings(const char *words, Ceilings *found)
{
    char *at;
    found->operations = strtod(words, &at);
    found->operations_int8 = strtod(at, &at);
    found->bytes = strtod(at, &at);
    return *at == '\0' && isfinite(found->operations) && isfinite(found->operations_int8) && isfinite(found->bytes)
        && found->operations >= 0 && found->operations_int8 >= 0 && found->bytes >= 0;
}

static bool take_index(const char **words, int most, int *index)
{
    char *at;
    long i = strtol(*words, &at, 10);
    *words = at + (*at == ' ');
    *index = (int)i;
    return i >= 0 && i < most;
}

/* The words of one good line. False: a program of this mossc does not say that. */
static bool take_words(Listener *l, const char *words)
{
    RunnerSaid *s = l->said;
    const size_t len = strcspn(words, " ");
    const char *rest = words + len + (words[len] == ' ');
    int i;
#define IS(word) (len == strlen(word) && strncmp(words, word, len) == 0)
    if (IS("hello"))
        return l->hello = atoi(rest) == BOARD_VERSION;
    if (IS("cpu"))
        return text_printf(&s->cpuinfo, "%s\n", rest), true;
    if (IS("emulated"))
        return s->emulated = true;
    if (IS("runs"))
        return take_index(&rest, BOARD_MAX_CODES, &i) && (s->runs[i] = true);
    if (IS("lacks"))
        return take_index(&rest, BOARD_MAX_CODES, &i)
            && (i > 0 || snprintf(s->lacks, sizeof s->lacks, "%.*s", (int)sizeof s->lacks - 1, rest) > 0);
    if (IS("threads"))
        return (s->n_threads = atoi(rest)) >= 0;
    if (IS("ceilings"))
        return take_ceilings(rest, &s->ceilings);
    if (IS("speed"))
        return (s->speed = strtod(rest, NULL)) > 0;
    if (IS("bits"))
        return take_index(&rest, TRIAL_MAX_WORKS, &i) && (s->bits[i] = strtoull(rest, NULL, 16), true);
    if (IS("status"))
        return s->has_status = trial_status_from_text(rest, &s->result.status);
    if (IS("error"))
        return s->result.max_error = strtod(rest, NULL), true;
    if (IS("detail"))
        return snprintf(s->result.detail, sizeof s->result.detail, "%s", rest) >= 0;
    if (IS("pairs"))
        return take_pairs(rest, s);
    if (IS("end"))
        return l->ended = true;
    return IS("alive");
#undef IS
}

static void take_junk(Listener *l, const char *line)
{
    l->junk += (long)strlen(line) + 1;
    if (!*l->first_junk)
        for (size_t i = 0; line[i] && i < SHOWN - 1; i++)
            l->first_junk[i] = line[i] < 0x20 || line[i] >= 0x7F ? '.' : line[i];
}

static void take_line(Listener *l, char *line)
{
    char *end;
    line[strcspn(line, "\r")] = '\0';
    const unsigned long sum = line[0] == '=' ? strtoul(line + 1, &end, 16) : 0;
    if (line[0] != '=' || end != line + 9 || *end != ' ') {
        take_junk(l, line);
    } else if (sum != board_checksum(l->program->nonce, end + 1) || !take_words(l, end + 1)) {
        l->garbled = true;
        take_junk(l, line);
    } else {
        l->heard = now();
    }
}

/* Whole lines; one longer than any of the program's is taken as it is. */
static void take_lines(Listener *l)
{
    size_t done = 0;
    for (char *end; (end = memchr(l->line + done, '\n', l->line_len - done)); done = (size_t)(end + 1 - l->line)) {
        *end = '\0';
        take_line(l, l->line + done);
    }
    if (done == 0 && l->line_len == LINE_ROOM - 1) {
        l->line[l->line_len] = '\0';
        take_junk(l, l->line);
        done = l->line_len;
    }
    memmove(l->line, l->line + done, l->line_len -= done);
}

static void keep_words(Listener *l, const char *bytes, size_t n)
{
    if (l->words_len + n > WORDS_ROOM - 1) {
        const size_t kept = n < WORDS_ROOM - 1 ? WORDS_ROOM - 1 - n : 0;
        memmove(l->words, l->words + l->words_len - kept, kept);
        l->words_len = kept;
    }
    memcpy(l->words + l->words_len, bytes, n);
    l->words_len += n;
}

/* What came since, up to a pipe's room each. True: something did. */
static bool listen(Listener *l)
{
    char bytes[WORDS_ROOM / 2];
    ssize_t n = read(l->out, l->line + l->line_len, LINE_ROOM - 1 - l->line_len);
    ssize_t n_words = read(l->err, bytes, sizeof bytes);
    if (n > 0) {
        l->line_len += (size_t)n;
        take_lines(l);
    }
    if (n_words > 0)
        keep_words(l, bytes, (size_t)n_words);
    return n > 0 || n_words > 0;
}

/* ---- the command ---- */

/* Stores what comes in, checks its length, and becomes it. One word, in which a login shell has nothing to do. */
static const char *store_script(const Runner *r, const RunnerProgram *program, long len)
{
    return arena_printf(r->arena, "exec sh -c '%sd=/data/local/tmp; test -w $d || d=${TMPDIR:-/tmp}; f=$d/%s; "
                        "%s >$f && test $(wc -c <$f) -eq %ld && chmod 700 $f && exec $f erase; rm -f $f; exit 120'",
                        r->way == WAY_LETTERS ? "stty -echo 2>/dev/null; " : "", program->nonce,
                        r->way == WAY_LETTERS ? "sed -n \"/^end$/q;p\" | base64 -d" : "cat", len);
}

/* The program as lines of letters, and one that says it is over. -1: no memory, or it cannot be read. */
static int letters_of(int file, long len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    Text text = { 0 };
    int out = memfd_create("letters", MFD_CLOEXEC);
    uint8_t *data = mmap(NULL, (size_t)len, PROT_READ, MAP_PRIVATE, file, 0);
    for (long i = 0; data != MAP_FAILED && i < len; i += 3) {
        const long left = len - i;
        const uint32_t bits = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0)
            | (left > 2 ? data[i + 2] : 0);
        const char four[4] = { digits[bits >> 18], digits[bits >> 12 & 63], left > 1 ? digits[bits >> 6 & 63] : '=',
                               left > 2 ? digits[bits & 63] : '=' };
        text_append(&text, four, 4);
        if (i / 3 % 18 == 17 || left <= 3)
            text_append(&text, "\n", 1);
    }
    text_append(&text, "end\n", 4);
    bool ok = data != MAP_FAILED && out >= 0 && write(out, text.data, text.len) == (ssize_t)text.len
        && lseek(out, 0, SEEK_SET) == 0;
    if (data != MAP_FAILED)
        munmap(data, (size_t)len);
    text_free(&text);
    if (!ok && out >= 0)
        close(out);
    return ok ? out : -1;
}

/* What the command reads: nothing, or the program. */
static int open_input(const Runner *r, const RunnerProgram *program, long *len)
{
    struct stat info;
    int file = open(r->way == WAY_PATH ? "/dev/null" : program->path, O_RDONLY | O_CLOEXEC);
    *len = file >= 0 && fstat(file, &info) == 0 ? (long)info.st_size : 0;
    if (file < 0 || r->way != WAY_LETTERS)
        return file;
    int letters = letters_of(file, *len);
    close(file);
    return letters;
}

/* With pipes for what it says; 0 or errno. */
static int start(const Runner *r, Listener *l, pid_t *pid)
{
    ToolCommand command = r->command;
    long len;
    int in = open_input(r, l->program, &len), out[2] = { -1, -1 }, err[2] = { -1, -1 };
    int error = in < 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 ? errno : 0;
    l->out = out[0];
    l->err = err[0];
    if (!error) {
        tool_add(&command, r->way == WAY_PATH ? l->program->path : store_script(r, l->program, len));
        command.args[command.n] = NULL;
        const int files[3] = { in, out[1], err[1] };
        error = interrupt_spawn_files(pid, command.args, files);
        fcntl(l->out, F_SETFL, O_NONBLOCK);
        fcntl(l->err, F_SETFL, O_NONBLOCK);
    }
    const int ours[] = { in, out[1], err[1] };
    for (int i = 0; i < 3; i++)
        if (ours[i] >= 0)
            close(ours[i]);
    return error;
}

/* ---- why not ---- */

/* The last line that the command wrote to standard error, else the first that is not the program's. */
static void words_of(const Listener *l, char words[SHOWN])
{
    char text[WORDS_ROOM], *end;
    memcpy(text, l->words, l->words_len);
    text[l->words_len] = '\0';
    for (end = text + strlen(text); end > text && (unsigned char)end[-1] <= ' '; end--)
        end[-1] = '\0';
    const char *line = strrchr(text, '\n');
    snprintf(words, SHOWN, "%s", *text ? line ? line + 1 : text : l->first_junk);
    for (char *c = words; *c; c++)
        *c = *c < 0x20 || *c >= 0x7F ? '.' : *c;
}

static void describe(const Runner *r, Listener *l, int status)
{
    RunnerSaid *s = l->said;
    char words[SHOWN];
    words_of(l, words);
    const char *before = *words ? ": " : "", *said = words;
    if (l->junk > MOST_JUNK || (l->garbled && !s->hung))
        snprintf(s->why, sizeof s->why, "it says what no program of mossc says%s%s", *l->first_junk ? ": " : "",
                 l->first_junk);
    else if (s->hung)
        snprintf(s->why, sizeof s->why, "it has said nothing for %.0f s%s%s", r->patience, before, said);
    else if (WIFSIGNALED(status))
        snprintf(s->why, sizeof s->why, "it was ended by signal %d (%s) before it answered%s%s", WTERMSIG(status),
                 strsignal(WTERMSIG(status)), before, said);
    else
        snprintf(s->why, sizeof s->why, "it ended with %d before it answered%s%s", WEXITSTATUS(status), before, said);
}

/* ---- the whole ---- */

static bool must_stop(const Runner *r, Listener *l, double begun, double seconds, double *ended)
{
    const double t = now();
    if (interrupt_came() || l->junk > MOST_JUNK)
        return true;
    if (l->ended && *ended == 0)
        *ended = t;
    if (l->ended)
        return t - *ended > END_SECONDS;
    return l->said->hung = t - l->heard > r->patience || t - begun > seconds + 2 * r->patience;
}

/* Until it has ended or must; its wait status. */
static int listen_to_end(const Runner *r, Listener *l, pid_t pid, double seconds)
{
    double begun = now(), ended = 0;
    struct pollfd pipes[] = { { l->out, POLLIN, 0 }, { l->err, POLLIN, 0 } };
    while (!interrupt_ended(pid)) {
        bool heard = listen(l);
        if (must_stop(r, l, begun, seconds, &ended)) {
            kill(-pid, SIGKILL);
            break;
        }
        if (!heard) {
            poll(pipes, 2, POLL_MS);
            if ((pipes[0].revents | pipes[1].revents) & POLLHUP)
                nanosleep(&(const struct timespec){ .tv_nsec = POLL_MS * 1000000 }, NULL);
        }
    }
    int status = interrupt_wait(pid);
    while (listen(l) && l->junk <= MOST_JUNK)
        continue;
    return status;
}

void runner_call(const Runner *r, const RunnerProgram *program, double seconds, RunnerSaid *said)
{
    pid_t pid;
    *said = (RunnerSaid){ .result = { .status = TRIAL_RUNNER_FAILED, .max_error = -1 } };
    Listener l = { .program = program, .said = said, .heard = now() };
    int error = start(r, &l, &pid);
    if (error) {
        snprintf(said->why, sizeof said->why, "%s cannot be started: %s", r->command.args[0], strerror(error));
    } else {
        int status = listen_to_end(r, &l, pid, seconds);
        said->interrupted = interrupt_came();
        said->complete = l.hello && l.ended && !l.garbled && !said->interrupted;
        said->hung = said->hung && !said->complete;
        memcpy(said->result.pairs, said->pairs, sizeof said->result.pairs);
        if (!said->complete)
            describe(r, &l, status);
    }
    if (l.out >= 0)
        close(l.out);
    if (l.err >= 0)
        close(l.err);
}
