/* A kernel with SELinux, as far as libvirt's security driver looks at it, on one without.
 *
 * Preloaded into a process that runs libvirt's QEMU driver, so that the real driver judges
 * seclabels with the model "selinux" first. Contexts are taken apart by the real libselinux;
 * nothing here judges a label.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/xattr.h>

#define DAEMON "system_u:system_r:virtd_t:s0-s0:c0.c1023"

static char domain_path[4096];
static char image_path[4096];

static const char *path(char *buffer, const char *name)
{
    const char *directory = getenv("FAKE_SELINUX_CONTEXTS");
    snprintf(buffer, sizeof(domain_path), "%s/%s", directory ? directory : "/", name);
    return buffer;
}

static int give(char **context)
{
    *context = strdup(DAEMON);
    return *context ? 0 : -1;
}

int is_selinux_enabled(void) { return 1; }
int security_getenforce(void) { return 1; }
int getcon(char **context) { return give(context); }
int getcon_raw(char **context) { return give(context); }
int getpidcon_raw(pid_t pid, char **context) { (void)pid; return give(context); }
int setexeccon_raw(const char *context) { (void)context; return 0; }
int setsockcreatecon_raw(const char *context) { (void)context; return 0; }

/* Files are labelled where FAKE_SELINUX_FILES is set: the superuser can, on any kernel. */
static int labels(void) { return getenv("FAKE_SELINUX_FILES") != NULL; }
#define NAME "security.selinux"
int setfilecon_raw(const char *file, const char *context)
{
    return labels() ? setxattr(file, NAME, context, strlen(context) + 1, 0) : 0;
}
int setfilecon(const char *file, const char *context) { return setfilecon_raw(file, context); }
int lsetfilecon_raw(const char *file, const char *context)
{
    return labels() ? lsetxattr(file, NAME, context, strlen(context) + 1, 0) : 0;
}
int fsetfilecon_raw(int file, const char *context)
{
    return labels() ? fsetxattr(file, NAME, context, strlen(context) + 1, 0) : 0;
}

static int none(void) { errno = ENOTSUP; return -1; }
int getfilecon_raw(const char *file, char **context)
{
    char text[4097] = "";
    if (!labels())
        return none();
    if (getxattr(file, NAME, text, sizeof(text) - 1) < 0)
        return -1;
    *context = strdup(text);
    return *context ? (int)strlen(text) + 1 : -1;
}
int lgetfilecon_raw(const char *file, char **context) { return getfilecon_raw(file, context); }
int fgetfilecon_raw(int file, char **context) { (void)file; (void)context; return none(); }

void *selabel_open(unsigned backend, const void *options, unsigned count)
{
    (void)backend; (void)options; (void)count;
    return domain_path;
}
void selabel_close(void *handle) { (void)handle; }
int selabel_lookup_raw(void *handle, char **context, const char *file, int type)
{
    (void)handle; (void)context; (void)file; (void)type;
    errno = ENOENT;
    return -1;
}

const char *selinux_virtual_domain_context_path(void)
{
    return path(domain_path, "virtual_domain_context");
}
const char *selinux_virtual_image_context_path(void)
{
    return path(image_path, "virtual_image_context");
}
