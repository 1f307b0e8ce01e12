/* Arena: bump allocation for one compile.
 *
 * Everything the front end, the passes and the planner make lives in one arena and dies with it;
 * nothing is freed on the way. Out of memory is an environment error: it prints and exits with 3.
 * Invariant: memory from arena_alloc is zeroed and aligned to 16 bytes.
 */
#ifndef MOSSC_IR_ARENA_H
#define MOSSC_IR_ARENA_H

#include <stdarg.h>
#include <stddef.h>

typedef struct Arena Arena;
typedef struct { void *chunk; size_t used; } ArenaMark;

Arena *arena_new(void);
void arena_free(Arena *arena);

/* `len` zeroed bytes; never NULL. */
void *arena_alloc(Arena *arena, size_t len);
/* An array of `count` zeroed elements; overflow of the product is an environment error. */
#define arena_array(arena, type, count) ((type *)arena_alloc_array((arena), sizeof(type), (count)))
void *arena_alloc_array(Arena *arena, size_t size, size_t count);
/* A copy of `array`, *room elements, all in use, with room for twice as many (16 at first, of NULL). */
void *arena_grow(Arena *arena, const void *array, size_t size, int *room);
#define arena_one(arena, type) arena_array(arena, type, 1)

char *arena_strdup(Arena *arena, const char *text);
char *arena_strndup(Arena *arena, const char *text, size_t len);
char *arena_printf(Arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
char *arena_vprintf(Arena *arena, const char *format, va_list args);

/* Scratch use inside a function: take a mark, allocate, release to the mark. */
ArenaMark arena_mark(const Arena *arena);
void arena_release(Arena *arena, ArenaMark mark);

#endif
