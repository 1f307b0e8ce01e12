/* Bundle: embedded runtime sources as one piece of text.
 *
 * Quoted includes are replaced by the file they name: headers once a bundle, .def tables each time.
 */
#ifndef MOSSC_CODEGEN_BUNDLE_H
#define MOSSC_CODEGEN_BUNDLE_H

#include "../ir/text.h"

#include <stdbool.h>

enum { BUNDLE_MAX_FILES = 64 };
typedef struct { bool included[BUNDLE_MAX_FILES]; } Bundle;   /* zero-initialise to use */

/* Append runtime/NAME unless this bundle has it; an unknown name is a bug. */
void bundle_file(Bundle *bundle, const char *name, Text *out);
/* What generated kernels need; the library for CPUs or a GPU; the command line of an executable (after the library). */
void bundle_kernel_headers(Bundle *bundle, Text *out);
void bundle_library(Bundle *bundle, bool gpu, Text *out);
void bundle_command_line(Bundle *bundle, Text *out);
/* A kernel template as it is written (NULL: all) and the headers its code needs. False: none has this name. */
bool bundle_template(Bundle *bundle, bool gpu, const char *name, Text *out);
/* For Android without an NDK: bionic.h goes before `text`, and the lines that include headers it stands for go. */
void bundle_bionic(Text *text);
/* Assembly of a stand-in for Android's C library, or of the functions that are in its libm.so. */
void bundle_bionic_library(bool libm, Text *out);
/* Give every identifier that begins with moss_ or MOSS_ another prefix (lower or upper case). */
void bundle_rename(Text *text, const char *prefix);

#endif
