/* Owns the failure of one chosen call: preloaded into a process, it names every call that reads or changes
 * something below FAILPOINT_FOLDER, and lets the one that FAILPOINT_SITE names fail as FAILPOINT_ACTION says.
 * It must never change any other call.
 *
 * A site is the kind of call, the path below the folder (all of sled's files count as one) and how many calls of
 * that kind there were before at that path: `fdatasync gen-000001/journal 2`. FAILPOINT_TRACE gets a line of
 * each, so that nobody has to list them. Actions:
 *
 *   die, die-after            the process ends before or after the call
 *   short                     a write writes half of it
 *   eintr                     it is interrupted before anything was done
 *   eio, enospc               it fails so, once
 *   eio-always, enospc-always from then on every call fails so that can: all of them, or those that take space
 *
 * It does not see mmap, io_uring or calls that bypass libc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum decision { PASS, DIE_AFTER, SHORT, FAIL };
enum { SITES_MAX = 1024 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static size_t folder_len;
static const char *wanted, *action;
static int trace = -1, failing;
static struct { char name[256]; int calls; } seen[SITES_MAX];
static int seen_len;

__attribute__((constructor)) static void begin(void) {
    const char *below = getenv("FAILPOINT_FOLDER"), *path = getenv("FAILPOINT_TRACE");
    wanted = getenv("FAILPOINT_SITE");
    action = getenv("FAILPOINT_ACTION");
    if (!below || !realpath(below, folder)) return;
    folder_len = strlen(folder);
    if (path) trace = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int takes_space(const char *kind) {
    return !strcmp(kind, "write") || !strcmp(kind, "create") || !strcmp(kind, "mkdir") || !strcmp(kind, "rename");
}

static enum decision fail_with(int error) {
    errno = error;
    return FAIL;
}

static enum decision act(void) {
    if (!strcmp(action, "die")) _exit(137);
    if (!strcmp(action, "die-after")) return DIE_AFTER;
    if (!strcmp(action, "short")) return SHORT;
    if (!strcmp(action, "eintr")) return fail_with(EINTR);
    return fail_with(!strncmp(action, "eio", 3) ? EIO : ENOSPC);
}

static enum decision decide_at(const char *kind, const char *path) {
    char name[256], line[320];
    if (!folder_len || strncmp(path, folder, folder_len) || path[folder_len] != '/') return PASS;
    const char *within = path + folder_len + 1, *sled = strstr(within, "/sled");
    int len = sled ? (int)(sled - within) + 5 : (int)strlen(within);
    if (snprintf(name, sizeof name, "%s %.*s", kind, len, within) >= (int)sizeof name) abort();
    pthread_mutex_lock(&mutex);
    int at = 0;
    while (at < seen_len && strcmp(seen[at].name, name)) at++;
    if (at == SITES_MAX) abort();
    if (at == seen_len) strcpy(seen[seen_len++].name, name);
    len = snprintf(line, sizeof line, "%s %d\n", name, seen[at].calls++);
    if (trace >= 0 && syscall(SYS_write, trace, line, len) != len) abort();
    line[len - 1] = 0;
    int hit = wanted && action && !strcmp(line, wanted);
    if (hit && strstr(action, "-always")) failing = 1;
    int now = failing, full = failing && action[1] == 'n';
    pthread_mutex_unlock(&mutex);
    if (hit || (now && (!full || takes_space(kind)))) return act();
    return PASS;
}

static enum decision decide(const char *kind, int fd) {
    char link[64], path[PATH_MAX];
    struct stat status;
    if (!folder_len || fd == trace || fstat(fd, &status) != 0) return PASS;
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return PASS;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0) return PASS;
    path[len] = 0;
    /* A sync of the folder itself counts too. */
    if (!strcmp(path, folder) && len + 3 < (ssize_t)sizeof path) strcat(path, "/.");
    return decide_at(kind, path);
}

/* The call as the next library makes it. */
#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

#define CALL(type, done)                \
    do {                                \
        type result = done;             \
        if (what == DIE_AFTER) _exit(137); \
        return result;                  \
    } while (0)

ssize_t write(int fd, const void *bytes, size_t len) {
    enum decision what = decide("write", fd);
    if (what == FAIL) return -1;
    if (what == SHORT) len = len / 2 + (len == 1);
    CALL(ssize_t, NEXT(ssize_t, "write", int, const void *, size_t)(fd, bytes, len));
}
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset) {
    enum decision what = decide("write", fd);
    if (what == FAIL) return -1;
    if (what == SHORT) len = len / 2 + (len == 1);
    CALL(ssize_t, NEXT(ssize_t, "pwrite64", int, const void *, size_t, off64_t)(fd, bytes, len, offset));
}
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) { return pwrite64(fd, bytes, len, offset); }

ssize_t read(int fd, void *bytes, size_t len) {
    enum decision what = decide("read", fd);
    if (what == FAIL) return -1;
    CALL(ssize_t, NEXT(ssize_t, "read", int, void *, size_t)(fd, bytes, len));
}
ssize_t pread64(int fd, void *bytes, size_t len, off64_t offset) {
    enum decision what = decide("read", fd);
    if (what == FAIL) return -1;
    CALL(ssize_t, NEXT(ssize_t, "pread64", int, void *, size_t, off64_t)(fd, bytes, len, offset));
}
ssize_t pread(int fd, void *bytes, size_t len, off_t offset) { return pread64(fd, bytes, len, offset); }

int ftruncate64(int fd, off64_t length) {
    enum decision what = decide("truncate", fd);
    if (what == FAIL) return -1;
    CALL(int, NEXT(int, "ftruncate64", int, off64_t)(fd, length));
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int fsync(int fd) {
    enum decision what = decide("fsync", fd);
    if (what == FAIL) return -1;
    CALL(int, NEXT(int, "fsync", int)(fd));
}
int fdatasync(int fd) {
    enum decision what = decide("fdatasync", fd);
    if (what == FAIL) return -1;
    CALL(int, NEXT(int, "fdatasync", int)(fd));
}

int mkdir(const char *path, mode_t mode) {
    enum decision what = decide_at("mkdir", path);
    if (what == FAIL) return -1;
    CALL(int, NEXT(int, "mkdir", const char *, mode_t)(path, mode));
}
int rename(const char *from, const char *to) {
    enum decision what = decide_at("rename", to);
    if (what == FAIL) return -1;
    CALL(int, NEXT(int, "rename", const char *, const char *)(from, to));
}
int unlink(const char *path) {
    enum decision what = decide_at("remove", path);
    if (what == FAIL) return -1;
    CALL(int, NEXT(int, "unlink", const char *)(path));
}
int rmdir(const char *path) {
    enum decision what = decide_at("remove", path);
    if (what == FAIL) return -1;
    CALL(int, NEXT(int, "rmdir", const char *)(path));
}
int unlinkat(int at, const char *path, int flags) {
    enum decision what = path[0] == '/' ? decide_at("remove", path) : decide("remove", at);
    if (what == FAIL) return -1;
    CALL(int, NEXT(int, "unlinkat", int, const char *, int)(at, path, flags));
}

static int open_as(const char *name, const char *path, int flags, mode_t mode) {
    enum decision what = decide_at(flags & O_CREAT ? "create" : "open", path);
    if (what == FAIL) return -1;
    CALL(int, NEXT(int, name, const char *, int, ...)(path, flags, mode));
}
#define OPEN(name)                                                                 \
    int name(const char *path, int flags, ...) {                                   \
        va_list rest;                                                              \
        va_start(rest, flags);                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;    \
        va_end(rest);                                                              \
        return open_as(#name, path, flags, mode);                                  \
    }
OPEN(open)
OPEN(open64)
