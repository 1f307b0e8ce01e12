/* Wire: messages between the processes of one search, over TCP.
 *
 * A message is its length (4 bytes, little-endian), its kind (1 byte) and its fields. Whole numbers are 8 bytes, texts
 * and bytes a length of 4 and themselves. What comes from the other side is never trusted: a reader that runs out of
 * bytes turns bad and gives zeros, a message that is too long ends the connection.
 */
#ifndef MOSSC_TUNER_WIRE_H
#define MOSSC_TUNER_WIRE_H

#include "../ir/arena.h"
#include "../ir/text.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int fd;
    Text in;                     /* bytes that came; the first `given` are of the message that was given out last */
    size_t given;
} Wire;

/* A port of this machine where workers can connect; `address` becomes "PORT ADDRESS ...": what to try from elsewhere,
 * and at last the loopback; that alone with `local`. -1: none, errno says why. */
int wire_listen(bool local, char *address, size_t len);
/* -1: nobody answers there within so many seconds an address, or nobody who says `greeting` first (wire_greet): on
 * another machine the loopback, and the address of a bridge of containers, are somebody else's. NULL: anybody will
 * do. */
int wire_connect(const char *address, double seconds, const char *greeting);
/* False: the other side is gone. */
bool wire_greet(Wire *wire, const char *greeting);
/* Has the other machine been silent for some twenty seconds? Then the connection is to end by itself. */
void wire_watch(int fd);

/* Fields of a message to send. */
void wire_put_int(Text *to, int64_t value);
void wire_put_double(Text *to, double value);
void wire_put_text(Text *to, const char *text);
void wire_put_bytes(Text *to, const void *bytes, size_t len);
/* False: the other side is gone. Empties the fields. */
bool wire_send(Wire *wire, int kind, Text *fields);

typedef struct { int kind; const uint8_t *at, *end; bool bad; } WireMessage;
/* 1: a message, good until the next call; 0: not yet, whether or not some bytes came; -1: the other side is gone. */
int wire_receive(Wire *wire, WireMessage *message);
/* Waits for one. False: the other side is gone, or a signal came. */
bool wire_wait(Wire *wire, WireMessage *message);
int64_t wire_int(WireMessage *message);
double wire_double(WireMessage *message);
const char *wire_text(WireMessage *message, Arena *arena);
/* Exactly `len` bytes; zeros when there are others. */
void wire_bytes(WireMessage *message, void *to, size_t len);
void wire_close(Wire *wire);

#endif
