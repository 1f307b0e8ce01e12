/* Interrupts: Ctrl-C, SIGTERM and SIGHUP leave neither folders nor running compilers behind. */
#ifndef MOSSC_COMPILER_INTERRUPT_H
#define MOSSC_COMPILER_INTERRUPT_H

#include <stdbool.h>
#include <sys/types.h>

/* TOOL: in a process group of its own, ended with mossc. PROGRAM: shares the terminal, and what
 * it makes of an interrupt is its affair. */
typedef enum { CHILD_TOOL, CHILD_PROGRAM } ChildKind;

/* From now on signals wait for interrupt_check; `folder` is removed then. Twice nested at most. */
void interrupt_guard(const char *folder);
/* The folder guarded last is gone, or is to stay. */
void interrupt_unguard(void);
/* End here, as the signal would have, if one came: a place where nothing is lost. */
void interrupt_check(void);
/* Has one come? For loops that save what they have before interrupt_check. */
bool interrupt_came(void);
/* posix_spawnp of a child that gets the signals too; with a file `log`, not -1, it says all there
 * and reads nothing. 0 or errno. */
int interrupt_spawn(pid_t *pid, ChildKind kind, const char *const *argv, int log);
/* The same of a TOOL with files of its own as standard input, output and error. */
int interrupt_spawn_files(pid_t *pid, const char *const *argv, const int files[3]);
/* Has a spawned child ended? It is still to be waited for. */
bool interrupt_ended(pid_t pid);
/* Wait for a spawned child; its wait status. */
int interrupt_wait(pid_t pid);

#endif
