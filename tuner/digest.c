/* Digest: SHA-256 (FIPS 180-4) and the fields on top of it. */
#include "digest.h"

#include <string.h>

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

static uint32_t read_be(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* One block of 64 bytes into the state. */
static void mix(Digest *digest)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = read_be(digest->block + 4 * i);
    for (int i = 16; i < 64; i++) {
        uint32_t a = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(s, digest->state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        uint32_t most = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        uint32_t x = s[7] + (turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25)) + choice + constants[i] + w[i];
        uint32_t y = (turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22)) + most;
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += x;
        s[0] = x + y;
    }
    for (int i = 0; i < 8; i++)
        digest->state[i] += s[i];
}

void digest_begin(Digest *digest)
{
    static const uint32_t begin[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
                                       0x1f83d9ab, 0x5be0cd19 };
    *digest = (Digest){ 0 };
    memcpy(digest->state, begin, sizeof begin);
}

void digest_bytes(Digest *digest, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < len; i++) {
        digest->block[digest->len++ % 64] = at[i];
        if (digest->len % 64 == 0)
            mix(digest);
    }
}

static void put_field(Digest *digest, char kind, uint64_t len)
{
    uint8_t head[9] = { (uint8_t)kind };
    for (int i = 0; i < 8; i++)
        head[1 + i] = (uint8_t)(len >> 8 * i);
    digest_bytes(digest, head, sizeof head);
}

void digest_text(Digest *digest, const char *text)
{
    put_field(digest, 't', strlen(text));
    digest_bytes(digest, text, strlen(text));
}

void digest_int(Digest *digest, int64_t value) { put_field(digest, 'i', (uint64_t)value); }

void digest_doubles(Digest *digest, const double *values, int n)
{
    put_field(digest, 'd', (uint64_t)n);
    for (int i = 0; i < n; i++) {
        uint64_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        put_field(digest, 'b', bits);
    }
}

void digest_end(Digest *digest, char *out, int n_digits)
{
    uint64_t n_bits = digest->len * 8;
    digest_bytes(digest, "\x80", 1);
    while (digest->len % 64 != 56)
        digest_bytes(digest, "", 1);
    for (int i = 0; i < 8; i++)
        digest_bytes(digest, &(uint8_t){ (uint8_t)(n_bits >> (56 - 8 * i)) }, 1);
    for (int i = 0; i < n_digits; i++)
        out[i] = "0123456789abcdef"[digest->state[i / 8] >> (28 - 4 * (i % 8)) & 15];
    out[n_digits] = 0;
}
