/* The least that a comparison of labels can do: read all folders below one, and the label of
 * each file. Compares nothing.
 *
 * Usage: walk_labels FOLDER; prints how many files there are, and how many have no label.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

static char path[8192], label[4096];
static long files, unlabelled;

static void walk(size_t length)
{
    DIR *folder = opendir(path);
    if (folder == NULL)
        return;
    path[length] = '/';
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        size_t size = strlen(entry->d_name);
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (length + size + 2 > sizeof path)
            continue;
        memcpy(path + length + 1, entry->d_name, size + 1);
        files++;
        if (lgetxattr(path, "security.selinux", label, sizeof label) < 0)
            unlabelled++;
        if (entry->d_type == DT_DIR)
            walk(length + size + 1);
    }
    path[length] = '\0';
    closedir(folder);
}

int main(int count, char **words)
{
    if (count != 2 || strlen(words[1]) >= sizeof path)
        return 2;
    strcpy(path, words[1]);
    walk(strlen(path));
    printf("%ld %ld\n", files, unlabelled);
    return 0;
}
