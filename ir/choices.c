/* Choices: a small table, searched from its begin. */
#include "choices.h"

#include "text.h"

#include <string.h>

Choices *choices_new(Arena *arena)
{
    Choices *choices = arena_one(arena, Choices);
    choices->arena = arena;
    return choices;
}

static KeyChoices *find(const Choices *choices, const char *key)
{
    for (int i = 0; choices && i < choices->n; i++)
        if (strcmp(choices->keys[i].key, key) == 0)
            return &choices->keys[i];
    return NULL;
}

const KeyChoices *choices_find(const Choices *choices, const char *key) { return find(choices, key); }

static KeyChoices *add(Choices *choices, const char *key)
{
    if (choices->n == choices->max) {
        int max = choices->max ? 2 * choices->max : 16;
        KeyChoices *keys = arena_array(choices->arena, KeyChoices, (size_t)max);
        if (choices->n)
            memcpy(keys, choices->keys, (size_t)choices->n * sizeof *keys);
        choices->keys = keys;
        choices->max = max;
    }
    KeyChoices *row = &choices->keys[choices->n++];
    *row = (KeyChoices){ .key = arena_strdup(choices->arena, key) };
    return row;
}

void choices_set(Choices *choices, const char *key, const char *name, int64_t value)
{
    KeyChoices *row = find(choices, key);
    if (!row)
        row = add(choices, key);
    int i = 0;
    while (i < row->n && strcmp(row->at[i].name, name) != 0)
        i++;
    if (i == CHOICES_MAX_VALUES)
        BUG("more than %d choices for %s", CHOICES_MAX_VALUES, key);
    row->n += i == row->n;
    row->at[i] = (Choice){ arena_strdup(choices->arena, name), value };
}

int64_t choices_get(const Choices *choices, const char *key, const char *name, int64_t absent)
{
    const KeyChoices *row = find(choices, key);
    for (int i = 0; row && i < row->n; i++)
        if (strcmp(row->at[i].name, name) == 0)
            return row->at[i].value;
    return absent;
}

void choices_drop(Choices *choices, const char *key)
{
    KeyChoices *row = find(choices, key);
    if (row)
        memmove(row, row + 1, (size_t)(--choices->n - (row - choices->keys)) * sizeof *row);
}

Choices *choices_copy(Arena *arena, const Choices *choices)
{
    Choices *copy = choices_new(arena);
    for (int i = 0; choices && i < choices->n; i++)
        for (int j = 0; j < choices->keys[i].n; j++)
            choices_set(copy, choices->keys[i].key, choices->keys[i].at[j].name, choices->keys[i].at[j].value);
    return copy;
}
