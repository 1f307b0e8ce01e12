/* Digest: SHA-256 of fields, so that a record's name is what it says.
 *
 * Every field is hashed with its kind and length: no two lists of fields look the same.
 */
#ifndef MOSSC_TUNER_DIGEST_H
#define MOSSC_TUNER_DIGEST_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t state[8];
    uint8_t block[64];
    uint64_t len;            /* bytes so far */
} Digest;

void digest_begin(Digest *digest);
void digest_bytes(Digest *digest, const void *bytes, size_t len);     /* as they are */
void digest_text(Digest *digest, const char *text);
void digest_int(Digest *digest, int64_t value);
void digest_doubles(Digest *digest, const double *values, int n);     /* [n], their bits, little-endian */
/* The first n_digits / 2 bytes of the hash, in hexadecimal, and a NUL. */
void digest_end(Digest *digest, char *out, int n_digits);

#endif
