/* Model.java's native methods over the C interface of a compiled model.
 *
 * Input: a path of weights or null (those in the library), the bytes of a prompt. Output: one token a call; what goes
 * wrong becomes a Java exception. Invariant: a session is used by one thread at a time, and closed by the one that opened
 * it, because that one is bound to a big core meanwhile.
 */
#include "libmodel.h"

#include <jni.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 8, ALIGN_LEN = 64, N_CONTEXT = 4096 };

typedef struct {
    moss_model *model;
    moss_context *context;
    moss_state *state;
    moss_sampler sampler;
    float *logits, *scratch;      /* [vocab_size], [2 * vocab_size] */
} Session;

static void throw_words(JNIEnv *env, const char *words)
{
    jclass class = (*env)->FindClass(env, "java/lang/IllegalStateException");
    if (class)
        (*env)->ThrowNew(env, class, words);
}

/* True if all is well; else an exception waits for Java. */
static int check(JNIEnv *env, int status, const moss_error *error)
{
    if (status != MOSS_OK)
        throw_words(env, error->message);
    return status == MOSS_OK;
}

static void *block(size_t len)
{
    void *memory = NULL;
    return posix_memalign(&memory, ALIGN_LEN, len) == 0 ? memory : NULL;
}

static void session_free(Session *session)
{
    if (!session)
        return;
    free(session->model), free(session->context), free(session->state);
    free(session->logits), free(session->scratch);
    free(session);
}

static Session *session_new(int n_threads)
{
    const size_t vocab_len = (size_t)moss_vocab_size() * sizeof(float);
    Session *session = calloc(1, sizeof *session);
    if (!session)
        return NULL;
    session->model = block(moss_model_len());
    session->context = block(moss_context_len(n_threads));
    session->state = block(moss_state_len(N_CONTEXT));
    session->logits = block(vocab_len);
    session->scratch = block(2 * vocab_len);
    if (session->model && session->context && session->state && session->logits && session->scratch)
        return session;
    session_free(session);
    return NULL;
}

/* A thread for each big core; false with an exception. */
static int session_open(JNIEnv *env, Session *session, const char *weights, const int32_t *cpus, int n_threads)
{
    moss_error error;
    if (!check(env, moss_model_open(session->model, weights, 1, &error), &error))
        return 0;
    if (!check(env, moss_context_init(session->context, session->model, n_threads, cpus, &error), &error)) {
        moss_model_close(session->model);
        return 0;
    }
    return 1;
}

JNIEXPORT jlong JNICALL Java_dev_moss_example_Model_open(JNIEnv *env, jclass class, jstring weights)
{
    (void)class;
    int32_t cpus[MAX_THREADS], n = moss_big_cpus(cpus, MAX_THREADS);
    const int n_threads = n > MAX_THREADS ? MAX_THREADS : n > 0 ? n : 1;
    Session *session = session_new(n_threads);
    const char *path = weights ? (*env)->GetStringUTFChars(env, weights, NULL) : NULL;
    if (!session)
        throw_words(env, "not enough memory for the model");
    if (session && !session_open(env, session, path, n > 0 ? cpus : NULL, n_threads)) {
        session_free(session);
        session = NULL;
    }
    if (path)
        (*env)->ReleaseStringUTFChars(env, weights, path);
    return (jlong)(intptr_t)session;
}

/* A new text: an empty state, then the prompt. A model of 256 tokens reads bytes. */
JNIEXPORT void JNICALL Java_dev_moss_example_Model_prompt(JNIEnv *env, jclass class, jlong handle, jbyteArray text,
                                                          jfloat temperature, jlong seed)
{
    (void)class;
    Session *session = (Session *)(intptr_t)handle;
    moss_error error;
    const jsize n = (*env)->GetArrayLength(env, text);
    int32_t *tokens = malloc((size_t)(n > 0 ? n : 1) * sizeof *tokens);
    jbyte *bytes = (*env)->GetByteArrayElements(env, text, NULL);
    if (tokens && bytes && n > 0) {
        for (jsize i = 0; i < n; i++)
            tokens[i] = (unsigned char)bytes[i];
        moss_sampler_init(&session->sampler, temperature, 40, 0.95f, 0.05f, (uint64_t)seed);
        if (check(env, moss_state_init(session->state, N_CONTEXT, &error), &error))
            check(env, moss_eval(session->context, session->state, 0, 0, tokens, n, session->logits, 1, &error), &error);
    } else {
        throw_words(env, n > 0 ? "not enough memory for the prompt" : "the prompt is empty");
    }
    if (bytes)
        (*env)->ReleaseByteArrayElements(env, text, bytes, JNI_ABORT);
    free(tokens);
}

/* The next token. */
JNIEXPORT jint JNICALL Java_dev_moss_example_Model_next(JNIEnv *env, jclass class, jlong handle)
{
    (void)class;
    Session *session = (Session *)(intptr_t)handle;
    moss_error error;
    const int32_t token = moss_sample(&session->sampler, session->logits, session->scratch);
    check(env, moss_eval(session->context, session->state, 0, 0, &token, 1, session->logits, 1, &error), &error);
    return token;
}

JNIEXPORT void JNICALL Java_dev_moss_example_Model_close(JNIEnv *env, jclass class, jlong handle)
{
    (void)env, (void)class;
    Session *session = (Session *)(intptr_t)handle;
    if (!session)
        return;
    moss_context_deinit(session->context);
    moss_model_close(session->model);
    session_free(session);
}
