/* Arena: bump allocation in chunks, newest chunk first.
 *
 * Input: sizes. Output: zeroed memory aligned to 16 bytes, freed all at once or back to a mark.
 * Invariant: bytes of a chunk above `dirty` are zero since calloc, so only memory that was used
 * before a release is cleared again; large fresh blocks are never touched here.
 */
#include "arena.h"
#include "text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, FIRST_CHUNK = 64 << 10, LARGEST_STEP = 4 << 20 };

typedef struct Chunk {
    struct Chunk *older;
    size_t len, used, dirty;
    _Alignas(ALIGN) unsigned char data[];
} Chunk;

struct Arena { Chunk *newest; size_t next_len; };

static _Noreturn void out_of_memory(size_t len)
{
    fprintf(stderr, "mossc: error[run]: out of memory: %zu bytes asked for\n", len);
    exit(3);
}

Arena *arena_new(void)
{
    Arena *arena = calloc(1, sizeof *arena);
    if (!arena)
        out_of_memory(sizeof *arena);
    arena->next_len = FIRST_CHUNK;
    return arena;
}

void arena_free(Arena *arena)
{
    if (!arena)
        return;
    arena_release(arena, (ArenaMark){ NULL, 0 });
    free(arena);
}

static Chunk *chunk_push(Arena *arena, size_t need)
{
    size_t len = need > arena->next_len ? need : arena->next_len;
    if (len > SIZE_MAX - sizeof(Chunk))
        out_of_memory(len);
    Chunk *chunk = calloc(1, sizeof(Chunk) + len);
    if (!chunk)
        out_of_memory(len);
    chunk->len = len;
    chunk->older = arena->newest;
    arena->newest = chunk;
    if (arena->next_len < LARGEST_STEP)
        arena->next_len *= 2;
    return chunk;
}

void *arena_alloc(Arena *arena, size_t len)
{
    if (len > SIZE_MAX / 2)
        out_of_memory(len);
    len = (len + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    Chunk *chunk = arena->newest;
    if (!chunk || len > chunk->len - chunk->used)
        chunk = chunk_push(arena, len);
    unsigned char *memory = chunk->data + chunk->used;
    if (chunk->used < chunk->dirty) {
        size_t stale = chunk->dirty - chunk->used;
        memset(memory, 0, stale < len ? stale : len);
    }
    chunk->used += len;
    if (chunk->dirty < chunk->used)
        chunk->dirty = chunk->used;
    return memory;
}

void *arena_alloc_array(Arena *arena, size_t size, size_t count)
{
    size_t len;
    if (__builtin_mul_overflow(size, count, &len))
        out_of_memory(SIZE_MAX);
    return arena_alloc(arena, len);
}

void *arena_grow(Arena *arena, const void *array, size_t size, int *room)
{
    const int n = *room;
    *room = n ? 2 * n : 16;
    void *grown = arena_alloc_array(arena, size, (size_t)*room);
    return n ? memcpy(grown, array, size * (size_t)n) : grown;
}

char *arena_strndup(Arena *arena, const char *text, size_t len)
{
    char *copy = arena_alloc(arena, len + 1);
    if (len)
        memcpy(copy, text, len);
    return copy;
}

char *arena_strdup(Arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}

char *arena_vprintf(Arena *arena, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (len < 0)
        BUG("bad format \"%s\"", format);
    char *text = arena_alloc(arena, (size_t)len + 1);
    vsnprintf(text, (size_t)len + 1, format, args);
    return text;
}

char *arena_printf(Arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = arena_vprintf(arena, format, args);
    va_end(args);
    return text;
}

ArenaMark arena_mark(const Arena *arena)
{
    Chunk *chunk = arena->newest;
    return (ArenaMark){ chunk, chunk ? chunk->used : 0 };
}

void arena_release(Arena *arena, ArenaMark mark)
{
    while (arena->newest != mark.chunk) {
        Chunk *chunk = arena->newest;
        if (!chunk)
            BUG("released to a mark that is not in this arena");
        arena->newest = chunk->older;
        free(chunk);
    }
    if (arena->newest)
        arena->newest->used = mark.used;
}
