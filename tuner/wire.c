/* Wire: sockets and frames. */
#include "wire.h"

#include "../compiler/interrupt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_LEN = 5, MOST_LEN = 16 << 20, POLL_MS = 200, GREETING = 0 };

/* ---- connections ---- */

static void add_addresses(char *to, size_t len)
{
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
        char text[INET_ADDRSTRLEN];
        if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET || !(a->ifa_flags & IFF_UP)
            || (a->ifa_flags & IFF_LOOPBACK))
            continue;
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)a->ifa_addr;
        size_t used = strlen(to);
        if (inet_ntop(AF_INET, &in->sin_addr, text, sizeof text) && used + strlen(text) + 2 < len)
            snprintf(to + used, len - used, " %s", text);
    }
    freeifaddrs(all);
}

int wire_listen(bool local, char *address, size_t len)
{
    static const char loopback[] = " 127.0.0.1";
    struct sockaddr_in here = { .sin_family = AF_INET };
    socklen_t here_len = sizeof here;
    here.sin_addr.s_addr = htonl(local ? INADDR_LOOPBACK : INADDR_ANY);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&here, sizeof here) != 0 || listen(fd, 64) != 0
        || getsockname(fd, (struct sockaddr *)&here, &here_len) != 0) {
        close(fd);
        return -1;
    }
    snprintf(address, len, "%d", ntohs(here.sin_port));
    if (!local)
        add_addresses(address, len - sizeof loopback);
    snprintf(address + strlen(address), len - strlen(address), "%s", loopback);
    return fd;
}

void wire_watch(int fd)
{
    const int on = 1, idle = 5, apart = 5, count = 3;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &apart, sizeof apart);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* One address, with a deadline. */
static int try_connect(const char *host, int port, double seconds)
{
    struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    int error = 0;
    socklen_t len = sizeof error;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || inet_pton(AF_INET, host, &there.sin_addr) != 1) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    struct pollfd done = { .fd = fd, .events = POLLOUT };
    if (connect(fd, (struct sockaddr *)&there, sizeof there) == 0
        || (errno == EINPROGRESS && poll(&done, 1, (int)(seconds * 1000)) == 1
            && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0)) {
        wire_watch(fd);
        return fd;
    }
    close(fd);
    return -1;
}


void wire_close(Wire *wire)
{
    if (wire->fd >= 0)
        close(wire->fd);
    wire->fd = -1;
    text_free(&wire->in);
}

/* ---- writing ---- */

static void put_little(Text *to, uint64_t value, int n)
{
    for (int i = 0; i < n; i++) {
        const char byte = (char)(value >> 8 * i);
        text_append(to, &byte, 1);
    }
}

void wire_put_int(Text *to, int64_t value) { put_little(to, (uint64_t)value, 8); }

void wire_put_double(Text *to, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_little(to, bits, 8);
}

void wire_put_bytes(Text *to, const void *bytes, size_t len)
{
    put_little(to, len, 4);
    text_append(to, bytes, len);
}

void wire_put_text(Text *to, const char *text) { wire_put_bytes(to, text, strlen(text)); }

static bool send_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        struct pollfd end = { .fd = fd, .events = POLLOUT };
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN && poll(&end, 1, POLL_MS) >= 0)
            continue;
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

bool wire_send(Wire *wire, int kind, Text *fields)
{
    Text frame = { 0 };
    const char byte = (char)kind;
    put_little(&frame, fields ? fields->len : 0, 4);
    text_append(&frame, &byte, 1);
    if (fields && fields->len)
        text_append(&frame, fields->data, fields->len);
    bool ok = wire->fd >= 0 && send_all(wire->fd, frame.data, frame.len);
    text_free(&frame);
    if (fields)
        text_free(fields);
    return ok;
}

/* ---- reading ---- */

static uint64_t little(const uint8_t *bytes, int n)
{
    uint64_t value = 0;
    for (int i = 0; i < n; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

static int take_message(Wire *wire, WireMessage *message)
{
    const uint8_t *bytes = (const uint8_t *)wire->in.data;
    if (wire->in.len < HEAD_LEN)
        return 0;
    const uint64_t len = little(bytes, 4);
    if (len > MOST_LEN)
        return -1;
    if (wire->in.len < HEAD_LEN + len)
        return 0;
    *message = (WireMessage){ .kind = bytes[4], .at = bytes + HEAD_LEN, .end = bytes + HEAD_LEN + len };
    wire->given = HEAD_LEN + (size_t)len;
    return 1;
}

int wire_receive(Wire *wire, WireMessage *message)
{
    char bytes[16384];
    if (wire->fd < 0)
        return -1;
    if (wire->given)
        memmove(wire->in.data, wire->in.data + wire->given, wire->in.len - wire->given);
    wire->in.len -= wire->given;
    wire->given = 0;
    for (;;) {
        int found = take_message(wire, message);
        if (found)
            return found;
        ssize_t n = recv(wire->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (n <= 0)
            return -1;
        text_append(&wire->in, bytes, (size_t)n);
    }
}

bool wire_wait(Wire *wire, WireMessage *message)
{
    int found;
    while ((found = wire_receive(wire, message)) == 0) {
        struct pollfd end = { .fd = wire->fd, .events = POLLIN };
        if (interrupt_came())
            return false;
        poll(&end, 1, POLL_MS);
    }
    return found > 0;
}

static const uint8_t *take(WireMessage *message, size_t len)
{
    const uint8_t *at = message->at;
    if (message->bad || (size_t)(message->end - at) < len) {
        message->bad = true;
        return NULL;
    }
    message->at += len;
    return at;
}

int64_t wire_int(WireMessage *message)
{
    const uint8_t *bytes = take(message, 8);
    return bytes ? (int64_t)little(bytes, 8) : 0;
}

double wire_double(WireMessage *message)
{
    const uint64_t bits = (uint64_t)wire_int(message);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static const uint8_t *take_counted(WireMessage *message, size_t *len)
{
    const uint8_t *count = take(message, 4);
    *len = count ? (size_t)little(count, 4) : 0;
    const uint8_t *bytes = take(message, *len);
    *len = bytes ? *len : 0;
    return bytes;
}

const char *wire_text(WireMessage *message, Arena *arena)
{
    size_t len;
    const uint8_t *bytes = take_counted(message, &len);
    message->bad |= bytes && memchr(bytes, 0, len);
    return bytes && !message->bad ? arena_strndup(arena, (const char *)bytes, len) : "";
}

void wire_bytes(WireMessage *message, void *to, size_t len)
{
    size_t found;
    const uint8_t *bytes = take_counted(message, &found);
    message->bad |= found != len;
    memset(to, 0, len);
    if (!message->bad)
        memcpy(to, bytes, len);
}

/* ---- finding each other ---- */

bool wire_greet(Wire *wire, const char *greeting)
{
    Text text = { 0 };
    wire_put_text(&text, greeting);
    return wire_send(wire, GREETING, &text);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Nothing follows a greeting until it was answered, so no bytes of what does are lost here. */
static bool is_greeted(int fd, double seconds, const char *greeting)
{
    Wire wire = { .fd = fd };
    WireMessage message;
    int found = 0;
    size_t len = 0;
    const double end = now() + seconds;
    while ((found = wire_receive(&wire, &message)) == 0 && now() < end && !interrupt_came())
        poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, POLL_MS);
    const uint8_t *bytes = found > 0 && message.kind == GREETING ? take_counted(&message, &len) : NULL;
    const bool ok = bytes && len == strlen(greeting) && memcmp(bytes, greeting, len) == 0;
    text_free(&wire.in);
    return ok;
}

int wire_connect(const char *address, double seconds, const char *greeting)
{
    char host[INET_ADDRSTRLEN];
    int port = 0, used = 0, fd = -1;
    if (sscanf(address, "%d%n", &port, &used) != 1)
        return -1;
    for (const char *at = address + used; fd < 0 && sscanf(at, " %15s%n", host, &used) == 1; at += used) {
        fd = try_connect(host, port, seconds);
        if (fd >= 0 && greeting && !is_greeted(fd, seconds, greeting)) {
            close(fd);
            fd = -1;
        }
    }
    return fd;
}
