/* Owns the account of what a power cut would take: preloaded into a process, it notes for every write to a
 * file below LOST_WRITE_FOLDER what was there before, and which syncs have completed.
 * It must never change what the process does.
 *
 * The account is the file LOST_WRITE_ACCOUNT, a row of entries of eight u64 in the machine's byte order, each
 * followed by the old bytes:
 *
 *   kind       1 write, 2 truncation, 3 completed sync, 4 new name, 5 completed sync of a folder
 *   device, inode      of the file; for a new name those of its folder
 *   offset     where it wrote; for a truncation the new length; for a new name the inode it stands for
 *   length     how much it wrote; for a new name 1 if the file is new as well, 0 if it was renamed
 *   size       the file's length before
 *   old_len    how many old bytes follow (for a new name: the length of its path, which follows)
 *   covers     for a sync: how long the account was when the sync began; later writes are not covered
 *
 * It does not see mmap, io_uring or writes that bypass libc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, TRUNCATION = 2, SYNC = 3, NAME = 4, FOLDER_SYNC = 5 };

struct entry {
    uint64_t kind, device, inode, offset, length, size, old_len, covers;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int account = -1;
static uint64_t account_len;
static char folder[PATH_MAX];
static size_t folder_len;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("LOST_WRITE_ACCOUNT"), *below = getenv("LOST_WRITE_FOLDER");
    if (!path || !below || !realpath(below, folder)) return;
    folder_len = strlen(folder);
    account = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    struct stat status;
    if (account >= 0 && fstat(account, &status) == 0) account_len = (uint64_t)status.st_size;
}

/* An account with a hole proves nothing: better to end at once. */
static void put(const void *bytes, size_t len) {
    if (syscall(SYS_write, account, bytes, len) != (long)len) abort();
    account_len += len;
}

static int is_below(const char *path) {
    return strncmp(path, folder, folder_len) == 0 && (path[folder_len] == '/' || path[folder_len] == 0);
}

/* Whether the descriptor is a file (or folder) that the account is about. */
static int is_ours(int fd, struct stat *status) {
    char link[64], path[PATH_MAX];
    if (account < 0 || fd == account || fstat(fd, status) != 0) return 0;
    if (!S_ISREG(status->st_mode) && !S_ISDIR(status->st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0) return 0;
    path[len] = 0;
    return is_below(path);
}

static void note_change(uint64_t kind, int fd, const struct stat *status, uint64_t offset, uint64_t length) {
    uint64_t size = (uint64_t)status->st_size, end = kind == WRITE ? offset + length : size;
    uint64_t old_end = end < size ? end : size, old_len = offset < old_end ? old_end - offset : 0;
    struct entry entry = {kind, status->st_dev, status->st_ino, offset, length, size, old_len, 0};
    char *old = malloc(old_len + 1);
    if (!old) abort();
    /* A descriptor that may only write cannot show the old bytes; its file can. */
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int readable = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
    for (uint64_t have = 0; have < old_len;) {
        long got = syscall(SYS_pread64, readable, old + have, old_len - have, offset + have);
        if (got <= 0) abort();
        have += (uint64_t)got;
    }
    syscall(SYS_close, readable);
    put(&entry, sizeof entry);
    put(old, old_len);
    free(old);
}

static ssize_t really_write(int fd, const void *bytes, size_t len, off64_t offset, int positioned) {
    if (positioned) return syscall(SYS_pwrite64, fd, bytes, len, offset);
    return syscall(SYS_write, fd, bytes, len);
}

static ssize_t write_at(int fd, const void *bytes, size_t len, off64_t offset, int positioned) {
    struct stat status;
    if (!is_ours(fd, &status)) return really_write(fd, bytes, len, offset, positioned);
    pthread_mutex_lock(&mutex);
    fstat(fd, &status);
    if (!positioned) {
        int flags = fcntl(fd, F_GETFL);
        offset = flags & O_APPEND ? status.st_size : lseek64(fd, 0, SEEK_CUR);
    }
    note_change(WRITE, fd, &status, (uint64_t)offset, len);
    ssize_t done = really_write(fd, bytes, len, offset, positioned);
    int error = errno;
    pthread_mutex_unlock(&mutex);
    errno = error;
    return done;
}

ssize_t write(int fd, const void *bytes, size_t len) { return write_at(fd, bytes, len, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) {
    return write_at(fd, bytes, len, offset, 1);
}
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset) {
    return write_at(fd, bytes, len, offset, 1);
}

/* A vector is written piece by piece, as the kernel may do too. */
static ssize_t writev_at(int fd, const struct iovec *pieces, int count, off64_t offset, int positioned) {
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = write_at(fd, pieces[i].iov_base, pieces[i].iov_len, offset + total, positioned);
        if (done < 0) return total ? total : -1;
        total += done;
        if ((size_t)done < pieces[i].iov_len) break;
    }
    return total;
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    struct stat status;
    if (!is_ours(fd, &status)) return syscall(SYS_writev, fd, pieces, count);
    return writev_at(fd, pieces, count, 0, 0);
}
ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
    return writev_at(fd, pieces, count, offset, 1);
}
ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset) {
    return writev_at(fd, pieces, count, offset, 1);
}

int ftruncate64(int fd, off64_t length) {
    struct stat status;
    if (!is_ours(fd, &status)) return (int)syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&mutex);
    fstat(fd, &status);
    note_change(TRUNCATION, fd, &status, (uint64_t)length, 0);
    int done = (int)syscall(SYS_ftruncate, fd, length);
    int error = errno;
    pthread_mutex_unlock(&mutex);
    errno = error;
    return done;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int sync_with(long call, int fd) {
    struct stat status;
    int ours = is_ours(fd, &status);
    pthread_mutex_lock(&mutex);
    uint64_t covers = account_len;
    pthread_mutex_unlock(&mutex);
    int done = (int)syscall(call, fd), error = errno;
    if (ours && done == 0) {
        uint64_t kind = S_ISDIR(status.st_mode) ? FOLDER_SYNC : SYNC;
        struct entry entry = {kind, status.st_dev, status.st_ino, 0, 0, 0, 0, covers};
        pthread_mutex_lock(&mutex);
        put(&entry, sizeof entry);
        pthread_mutex_unlock(&mutex);
    }
    errno = error;
    return done;
}

int fsync(int fd) { return sync_with(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_with(SYS_fdatasync, fd); }

/* A new name is lost with the power unless its folder is synced; the folder is named by its own inode. */
static void note_name(const char *path, int created) {
    char copy[PATH_MAX], real[PATH_MAX], whole[PATH_MAX * 2];
    struct stat parent, status;
    if (account < 0 || strlen(path) >= sizeof copy) return;
    strcpy(copy, path);
    char *slash = strrchr(copy, '/');
    if (!slash || slash == copy) return;
    *slash = 0;
    if (!realpath(copy, real) || !is_below(real)) return;
    if (stat(real, &parent) != 0 || lstat(path, &status) != 0) return;
    int len = snprintf(whole, sizeof whole, "%s/%s", real, slash + 1);
    struct entry entry = {NAME, parent.st_dev, parent.st_ino, status.st_ino, created, 0, (uint64_t)len, 0};
    pthread_mutex_lock(&mutex);
    put(&entry, sizeof entry);
    put(whole, (size_t)len);
    pthread_mutex_unlock(&mutex);
}

static int open_at(int at, const char *path, int flags, mode_t mode) {
    struct stat status;
    int is_new = (flags & O_CREAT) && path[0] == '/' && account >= 0 && lstat(path, &status) != 0;
    int fd = (int)syscall(SYS_openat, at, path, flags, mode), error = errno;
    if (fd >= 0 && is_new) note_name(path, 1);
    errno = error;
    return fd;
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? va_arg(rest, mode_t) : 0;
}

#define OPEN(name, at, ...)                    \
    int name(__VA_ARGS__, ...) {               \
        va_list rest;                          \
        va_start(rest, flags);                 \
        mode_t mode = mode_of(flags, rest);    \
        va_end(rest);                          \
        return open_at(at, path, flags, mode); \
    }
OPEN(open, AT_FDCWD, const char *path, int flags)
OPEN(open64, AT_FDCWD, const char *path, int flags)
OPEN(openat, at, int at, const char *path, int flags)
OPEN(openat64, at, int at, const char *path, int flags)

int mkdir(const char *path, mode_t mode) {
    int done = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode), error = errno;
    if (done == 0) note_name(path, 1);
    errno = error;
    return done;
}

/* What a rename replaces is there again when the rename is lost: it is kept beside the account, by the inode
 * of what took its place. */
static void keep_replaced(const char *from, const char *to) {
    char kept[PATH_MAX + 32];
    struct stat moved;
    const char *path = getenv("LOST_WRITE_ACCOUNT");
    if (account < 0 || !path || lstat(from, &moved) != 0) return;
    snprintf(kept, sizeof kept, "%s.%lu", path, (unsigned long)moved.st_ino);
    syscall(SYS_unlinkat, AT_FDCWD, kept, 0);
    syscall(SYS_linkat, AT_FDCWD, to, AT_FDCWD, kept, 0);
}

int rename(const char *from, const char *to) {
    keep_replaced(from, to);
    int done = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0), error = errno;
    if (done == 0) note_name(to, 0);
    errno = error;
    return done;
}
