/* The glue of examples/android on a stand-in for the Java machine: texts, errors, and that nothing is left held.
 *
 * Usage: driver WEIGHTS-OR-"-" PROMPT. Prints the prompt and 60 bytes the model adds. Exit code 0: all as it should be.
 */
#include "jni.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

jlong Java_dev_moss_example_Model_open(JNIEnv *env, jclass class_, jstring weights);
void Java_dev_moss_example_Model_prompt(JNIEnv *env, jclass class_, jlong handle, jbyteArray text, jfloat temperature,
                                        jlong seed);
jint Java_dev_moss_example_Model_next(JNIEnv *env, jclass class_, jlong handle);
void Java_dev_moss_example_Model_close(JNIEnv *env, jclass class_, jlong handle);

enum { N_TEXT = 60 };

struct _jobject { const char *text; };

static struct _jobject exception_class;
static char thrown[512];
static int n_held;

static jclass find_class(JNIEnv *env, const char *name)
{
    (void)env;
    exception_class.text = name;
    return strcmp(name, "java/lang/IllegalStateException") ? NULL : &exception_class;
}

static jint throw_new(JNIEnv *env, jclass class_, const char *message)
{
    (void)env;
    snprintf(thrown, sizeof thrown, "%s", message);
    return class_ == &exception_class ? 0 : -1;
}

static const char *string_chars(JNIEnv *env, jstring string, jboolean *is_copy)
{
    (void)env, (void)is_copy;
    n_held++;
    return string->text;
}

static void release_string(JNIEnv *env, jstring string, const char *chars)
{
    (void)env;
    n_held -= chars == string->text;
}

static jsize array_length(JNIEnv *env, jarray array) { (void)env; return (jsize)strlen(array->text); }

static jbyte *array_elements(JNIEnv *env, jbyteArray array, jboolean *is_copy)
{
    (void)env, (void)is_copy;
    n_held++;
    return (jbyte *)strdup(array->text);
}

static void release_array(JNIEnv *env, jbyteArray array, jbyte *elements, jint mode)
{
    (void)env, (void)array, (void)mode;
    free(elements);
    n_held--;
}

static const struct JNINativeInterface functions = {
    find_class, throw_new, string_chars, release_string, array_length, array_elements, release_array,
};

static void expect(int good, const char *what)
{
    if (good)
        return;
    printf("FAIL: %s; thrown: %s\n", what, thrown);
    exit(1);
}

static void write_text(JNIEnv *env, jlong handle, const char *prompt, char text[N_TEXT + 1])
{
    struct _jobject words = { prompt };
    Java_dev_moss_example_Model_prompt(env, NULL, handle, &words, 0.7f, 1);
    for (int i = 0; i < N_TEXT; i++)
        text[i] = (char)Java_dev_moss_example_Model_next(env, NULL, handle);
    text[N_TEXT] = 0;
}

int main(int argc, char **argv)
{
    JNIEnv machine = &functions;
    struct _jobject none = { "/nowhere/model.weights" }, empty = { "" }, path = { argc > 1 ? argv[1] : "-" };
    char text[N_TEXT + 1], again[N_TEXT + 1];
    const char *prompt = argc > 2 ? argv[2] : "ROMEO:";
    expect(Java_dev_moss_example_Model_open(&machine, NULL, &none) == 0, "a file that is not there was opened");
    expect(strstr(thrown, "/nowhere/model.weights: cannot open the weights") != NULL, "no words about the missing file");
    thrown[0] = 0;
    jlong handle = Java_dev_moss_example_Model_open(&machine, NULL, strcmp(path.text, "-") ? &path : NULL);
    expect(handle != 0 && !thrown[0], "the model does not open");
    Java_dev_moss_example_Model_prompt(&machine, NULL, handle, &empty, 0.7f, 1);
    expect(strcmp(thrown, "the prompt is empty") == 0, "an empty prompt was taken");
    thrown[0] = 0;
    write_text(&machine, handle, prompt, text);
    write_text(&machine, handle, prompt, again);
    expect(!thrown[0] && strcmp(text, again) == 0, "one seed, two texts");
    Java_dev_moss_example_Model_close(&machine, NULL, handle);
    Java_dev_moss_example_Model_close(&machine, NULL, 0);
    expect(n_held == 0, "strings or arrays are held");
    printf("%s%s\n", prompt, text);
    return 0;
}
