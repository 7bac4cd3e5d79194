// Counts the calls that change files in a folder, and makes one of them fail or be the last: preloaded by scripts/faults.py.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, INT, TERM, FULL_ONCE, FULL, DENIED };
enum { NAME, ROOM, DROP };  // changes a name, takes room on the disk, gives room back

static char watched[PATH_MAX];
static long target, seen;
static int kind = -1;

void fault_arm(const char *folder, long number, int what) {
    strncpy(watched, folder, sizeof watched - 1);
    target = number, seen = 0, kind = what;
}
long fault_count(void) { return seen; }

static int inside(const char *path) {
    size_t length = strlen(watched);
    return length && !strncmp(path, watched, length) && (path[length] == '/' || !path[length]);
}
static int of_descriptor(int descriptor, char *found) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, found, PATH_MAX - 1);
    found[length < 0 ? 0 : length] = 0;
    return length >= 0;
}
static int in_path(int folder, const char *path) {
    char whole[2 * PATH_MAX], base[PATH_MAX] = "";
    if (kind < 0 || !path) return 0;
    if (*path == '/') return inside(path);
    if (folder == AT_FDCWD) { if (!getcwd(base, sizeof base)) return 0; }
    else of_descriptor(folder, base);
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return inside(whole);
}
static int in_file(int descriptor) {
    char found[PATH_MAX];
    return kind >= 0 && of_descriptor(descriptor, found) && inside(found);
}
// Whether the call fails; errno is set then.
static int hit(int what) {
    if (kind < 0 || ++seen < target || kind == COUNT) return 0;
    int first = seen == target;
    if (kind == KILL && first) raise(SIGKILL);
    if (kind == INT && first) kill(getpid(), SIGINT);
    if (kind == TERM && first) kill(getpid(), SIGTERM);
    if ((kind == FULL_ONCE && first && what != DROP) || (kind == FULL && what == ROOM)) { errno = ENOSPC; return 1; }
    if (kind == DENIED && what != ROOM) { errno = EACCES; return 1; }
    return 0;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define OPEN(name, parameters, at, given)                                                      \
    int name parameters {                                                                     \
        REAL(name);                                                                           \
        mode_t mode = 0;                                                                      \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        if (flags & (O_CREAT | O_TRUNC) && in_path(at, path) && hit(NAME)) return -1;          \
        return real given;                                                                    \
    }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(openat, (int at, const char *path, int flags, ...), at, (at, path, flags, mode))
OPEN(openat64, (int at, const char *path, int flags, ...), at, (at, path, flags, mode))

#define CALL(type, name, parameters, given, where, what) \
    type name parameters { REAL(name); if ((where) && hit(what)) return -1; return real given; }
CALL(ssize_t, write, (int to, const void *data, size_t size), (to, data, size), in_file(to), ROOM)
CALL(ssize_t, pwrite64, (int to, const void *data, size_t size, off64_t at), (to, data, size, at), in_file(to), ROOM)
CALL(ssize_t, writev, (int to, const struct iovec *data, int count), (to, data, count), in_file(to), ROOM)
CALL(ssize_t, sendfile, (int to, int from, off_t *at, size_t size), (to, from, at, size), in_file(to), ROOM)
CALL(ssize_t, sendfile64, (int to, int from, off64_t *at, size_t size), (to, from, at, size), in_file(to), ROOM)
CALL(int, ftruncate64, (int to, off64_t size), (to, size), in_file(to), ROOM)
CALL(int, fsync, (int to), (to), in_file(to), ROOM)
CALL(int, fdatasync, (int to), (to), in_file(to), ROOM)
CALL(int, rename, (const char *from, const char *to), (from, to), in_path(AT_FDCWD, from) || in_path(AT_FDCWD, to), NAME)
CALL(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), in_path(a, from) || in_path(b, to), NAME)
CALL(int, link, (const char *from, const char *to), (from, to), in_path(AT_FDCWD, to), NAME)
CALL(int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags), in_path(b, to), NAME)
CALL(int, symlink, (const char *from, const char *to), (from, to), in_path(AT_FDCWD, to), NAME)
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), in_path(AT_FDCWD, path), NAME)
CALL(int, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode), in_path(at, path), NAME)
CALL(int, unlink, (const char *path), (path), in_path(AT_FDCWD, path), DROP)
CALL(int, unlinkat, (int at, const char *path, int flags), (at, path, flags), in_path(at, path), DROP)
CALL(int, rmdir, (const char *path), (path), in_path(AT_FDCWD, path), DROP)
