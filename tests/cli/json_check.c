/* Is standard input JSON, and does it hold what is asked?
 *
 *   json_check [PATH]... < FILE    PATH: keys and indices joined by dots, e.g. modes.0.params
 * Output: the value at each PATH, one a line. Exit code: 0; 1 no JSON, or no such value.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cJSON *find(cJSON *at, const char *path)
{
    while (at && *path) {
        char key[64];
        size_t len = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)len, path);
        at = cJSON_IsArray(at) ? cJSON_GetArrayItem(at, atoi(key)) : cJSON_GetObjectItemCaseSensitive(at, key);
        path += len + (path[len] == '.');
    }
    return at;
}

static char *read_all(FILE *file)
{
    size_t len = 0, room = 1 << 16, n;
    char *text = malloc(room + 1);
    while (text && (n = fread(text + len, 1, room - len, file)) > 0) {
        len += n;
        if (len == room)
            text = realloc(text, (room *= 2) + 1);
    }
    if (text)
        text[len] = 0;
    return text;
}

int main(int argc, char **argv)
{
    char *text = read_all(stdin);
    cJSON *root = text ? cJSON_ParseWithOpts(text, NULL, 1) : NULL;
    int code = root ? 0 : 1;
    if (!root)
        fprintf(stderr, "json_check: not JSON\n");
    for (int i = 1; root && i < argc; i++) {
        cJSON *value = find(root, argv[i]);
        char *shown = value ? cJSON_PrintUnformatted(value) : NULL;
        printf("%s\n", shown ? shown : "");
        code |= !shown;
        cJSON_free(shown);
    }
    cJSON_Delete(root);
    free(text);
    return code;
}
