#!/bin/sh
# examples/android as far as it can be checked without Android's tools.
#
#   example_android.sh MOSSC
# The JNI glue is compiled against the header mossc writes and run on a stand-in for the Java machine; with a javac the
# Java code is compiled, too (Android's own classes are stand-ins), and its native methods must be those of the glue.
set -eu
mossc=$(realpath "$1")
top=$(cd "$(dirname "$0")/../.." && pwd)
app=$top/examples/android/app/src/main
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "FAIL: $*"; exit 1; }
glue() { ${CC:-cc} -std=gnu17 -O1 -Wall -Wextra -Werror -I"$top/tests/cli/jni" -I. "$app/cpp/moss_jni.c" "$@"; }

# --- The glue, for this machine, with weights in the library and beside it ---
model=$top/models/shakespeare/shakespeare.json
"$mossc" compile "$model" --quant q8 --emit lib --embed yes -o libmodel.so
glue "$top/tests/cli/jni/driver.c" -o embedded -L. -lmodel -Wl,-rpath,"$work"
./embedded - "ROMEO:" >text || { cat text; exit 1; }
mkdir file && "$mossc" compile "$model" --quant q8 --emit lib --embed no -o file/libmodel.so
beside=$work/file
mv file/libmodel.so.weights pushed.weights
glue "$top/tests/cli/jni/driver.c" -o beside -Lfile -lmodel -Wl,-rpath,"$beside"
./beside pushed.weights "ROMEO:" >other || { cat other; exit 1; }
cmp -s text other || fail "weights in a file: $(cat other), in the library: $(cat text)"

# --- What the project's files say ---
for file in "$app/AndroidManifest.xml" "$app/res/values/strings.xml"; do
    python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$file" || fail "$file is not XML"
done
grep -q 'was not built where mossc is developed' "$top/examples/android/README.md" || fail "the README must say so"
grep -q 'max-page-size=16384' "$app/cpp/CMakeLists.txt" || fail "16 KiB pages"

# --- Java ---
if ! command -v javac >/dev/null; then
    echo "SKIPPED: the Java code: no javac (Debian: default-jdk-headless)"
    echo "example_android: ok"
    exit 0
fi
mkdir -p stubs/android/app stubs/android/os stubs/android/view stubs/android/widget stubs/dev/moss/example headers classes
java=$app/java/dev/moss/example
echo 'package android.os; public class Bundle {}' >stubs/android/os/Bundle.java
cat >stubs/android/view/View.java <<'JAVA'
package android.view;
public class View {
    public interface OnClickListener { void onClick(View view); }
    public void setOnClickListener(OnClickListener listener) {}
    public void setFitsSystemWindows(boolean fit) {}
}
JAVA
cat >stubs/android/app/Activity.java <<'JAVA'
package android.app;
public class Activity {
    protected void onCreate(android.os.Bundle saved) {}
    protected void onDestroy() {}
    public void setContentView(android.view.View view) {}
    public final void runOnUiThread(Runnable task) {}
    public java.io.File getFilesDir() { return null; }
}
JAVA
cat >stubs/android/widget/TextView.java <<'JAVA'
package android.widget;
public class TextView extends android.view.View {
    public TextView(android.app.Activity context) {}
    public final void setText(CharSequence text) {}
    public final void setText(int resource) {}
    public final void setHint(int resource) {}
    public void setTextIsSelectable(boolean selectable) {}
    public CharSequence getText() { return null; }
}
JAVA
for widget in Button EditText; do
    echo "package android.widget; public class $widget extends TextView {" \
        "public $widget(android.app.Activity context) { super(context); } }" >stubs/android/widget/$widget.java
done
for widget in LinearLayout ScrollView; do
    echo "package android.widget; public class $widget extends android.view.View { public static final int VERTICAL = 1;" \
        "public $widget(android.app.Activity context) {} public void addView(android.view.View view) {}" \
        "public void setOrientation(int orientation) {} }" >stubs/android/widget/$widget.java
done
# R holds the names of strings.xml, so a missing one does not compile.
echo "package dev.moss.example; final class R { static final class string {" \
    "$(sed -n 's/.*<string name="\([a-z_]*\)".*/static final int \1 = 0;/p' "$app/res/values/strings.xml") } }" \
    >stubs/dev/moss/example/R.java
# shellcheck disable=SC2046
javac -Xlint:all -Werror -d classes -h headers "$java/Model.java" "$java/MainActivity.java" $(find stubs -name '*.java') ||
    fail "the Java code does not compile"
glue -include headers/dev_moss_example_Model.h -c -o glue.o || fail "the glue is not what Model.java declares"
sed -n 's/.*JNICALL \(Java_[A-Za-z0-9_]*\).*/\1/p' headers/dev_moss_example_Model.h | sort >declared
nm -g --defined-only glue.o | sed -n 's/.* T \(Java_.*\)/\1/p' | sort >defined
[ -s declared ] && cmp -s declared defined || fail "native methods: $(diff declared defined)"
echo "example_android: ok"
