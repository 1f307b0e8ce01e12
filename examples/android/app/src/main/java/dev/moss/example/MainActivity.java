package dev.moss.example;

import android.app.Activity;
import android.os.Bundle;
import android.widget.Button;
import android.widget.EditText;
import android.widget.LinearLayout;
import android.widget.ScrollView;
import android.widget.TextView;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** A text field, a button, and the model's words as they come. The model lives on one background thread. */
public final class MainActivity extends Activity {
    private static final int MAX_BYTES = 2000;

    private final ExecutorService background = Executors.newSingleThreadExecutor();
    private volatile boolean stop;
    private Model model;             // of the background thread alone
    private EditText prompt;
    private TextView text;
    private Button button;
    private boolean writing;         // of the user interface's thread

    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        prompt = new EditText(this);
        prompt.setHint(R.string.prompt);
        prompt.setText("ROMEO:");
        button = new Button(this);
        button.setText(R.string.write);
        button.setOnClickListener(view -> toggle());
        text = new TextView(this);
        text.setTextIsSelectable(true);
        ScrollView scroll = new ScrollView(this);
        scroll.addView(text);
        LinearLayout root = new LinearLayout(this);
        root.setOrientation(LinearLayout.VERTICAL);
        root.setFitsSystemWindows(true);
        root.addView(prompt);
        root.addView(button);
        root.addView(scroll);
        setContentView(root);
    }

    private void toggle() {
        if (writing) {
            stop = true;
            return;
        }
        writing = true;
        stop = false;
        button.setText(R.string.stop);
        String words = prompt.getText().toString();
        background.execute(() -> write(words));
    }

    /** On the background thread: shows the text after every line, or every few bytes. */
    private void write(String words) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try {
            if (model == null) {
                model = new Model(weights());
            }
            byte[] begin = words.getBytes(StandardCharsets.UTF_8);
            bytes.write(begin, 0, begin.length);
            model.prompt(begin, 0.7f, System.nanoTime());
            for (int i = 0; i < MAX_BYTES && !stop; i++) {
                bytes.write(model.next());
                if (i % 8 == 7) {
                    show(bytes.toByteArray());
                }
            }
            show(bytes.toByteArray());
        } catch (IllegalStateException failed) {
            show(failed.getMessage().getBytes(StandardCharsets.UTF_8));
        }
        runOnUiThread(() -> {
            writing = false;
            button.setText(R.string.write);
        });
    }

    private void show(byte[] bytes) {
        String all = new String(bytes, StandardCharsets.UTF_8);
        runOnUiThread(() -> text.setText(all));
    }

    /** A file pushed to the app's folder; without one the weights in the library serve. */
    private String weights() {
        File file = new File(getFilesDir(), "model.weights");
        return file.exists() ? file.getPath() : null;
    }

    @Override
    protected void onDestroy() {
        stop = true;
        background.execute(() -> {
            if (model != null) {
                model.close();
            }
        });
        background.shutdown();
        super.onDestroy();
    }
}
