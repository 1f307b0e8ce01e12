package dev.moss.example;

/** A compiled model: a prompt in, bytes out. All calls come from one thread. Failures are IllegalStateException. */
final class Model implements AutoCloseable {
    static {
        System.loadLibrary("moss_jni");
    }

    private long handle;

    /** weights: the path of a .weights file, or null where they are in the library or beside it. */
    Model(String weights) {
        handle = open(weights);
    }

    void prompt(byte[] text, float temperature, long seed) {
        prompt(handle, text, temperature, seed);
    }

    /** The next byte of the text. */
    int next() {
        return next(handle);
    }

    @Override
    public void close() {
        close(handle);
        handle = 0;
    }

    private static native long open(String weights);

    private static native void prompt(long handle, byte[] text, float temperature, long seed);

    private static native int next(long handle);

    private static native void close(long handle);
}
