/* As much of jni.h as examples/android uses, after the JNI specification: to check its glue without a Java machine. The
 * order of the functions is our own, so nothing compiled with this can run on a real one.
 */
#ifndef MOSS_TESTS_JNI_H
#define MOSS_TESTS_JNI_H

#include <stdint.h>

#define JNIEXPORT __attribute__((visibility("default")))
#define JNICALL
#define JNI_ABORT 2

typedef int32_t jint, jsize;
typedef int64_t jlong;
typedef int8_t jbyte;
typedef uint8_t jboolean;
typedef float jfloat;
typedef struct _jobject *jobject;
typedef jobject jclass, jstring, jthrowable, jarray, jbyteArray;

typedef const struct JNINativeInterface *JNIEnv;
struct JNINativeInterface {
    jclass (JNICALL *FindClass)(JNIEnv *env, const char *name);
    jint (JNICALL *ThrowNew)(JNIEnv *env, jclass class_, const char *message);
    const char *(JNICALL *GetStringUTFChars)(JNIEnv *env, jstring string, jboolean *is_copy);
    void (JNICALL *ReleaseStringUTFChars)(JNIEnv *env, jstring string, const char *chars);
    jsize (JNICALL *GetArrayLength)(JNIEnv *env, jarray array);
    jbyte *(JNICALL *GetByteArrayElements)(JNIEnv *env, jbyteArray array, jboolean *is_copy);
    void (JNICALL *ReleaseByteArrayElements)(JNIEnv *env, jbyteArray array, jbyte *elements, jint mode);
};

#endif
