/* Sees every step of a process that changes a file in one folder, and can make any of them the last, or fail.

   Loaded with LD_PRELOAD, so that it sees SQLite's own calls and Python's alike. Linux only. A step is what a disk has to
   remember: a file made, written, cut, synced, renamed or removed; a folder synced. The environment says what
   is wanted, when the process starts or when it calls crash_arm():

   CRASH_FOLDER  the folder, absolute, without a link in it; without it nothing is watched
   CRASH_LOG     a file that gets a record of each step that succeeded: struct record, names, data
   CRASH_DATA    if set, the records hold what was written
   CRASH_PLAN    "KIND NAME NUMBER ACTION VALUE": what becomes of the NUMBER-th (1, 2, ...) step of that kind on the
                 file of that name; "*" is any kind, or any name. The actions:
                 kill 0    SIGKILL instead of the step
                 tear 0    SIGKILL when half of a write is done
                 fail E    the step fails with errno E; those behind it don't
                 full E    half of a write is done; its rest, every write and every new file from then on fail with E
                 break E   the step and every one behind it fail with E
                 signal S  the process gets signal S, and the step is done */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CREATE, WRITE, CUT, SYNC, SYNC_FOLDER, RENAME, REMOVE };
static const char *const KINDS[] = {"create", "write", "cut", "sync", "sync-folder", "rename", "remove"};

struct record { /* tests/crash/steps.py reads it */
    uint64_t begun_ns, ended_ns; /* CLOCK_MONOTONIC */
    uint64_t file;               /* inode */
    int64_t offset;              /* of a write; of a cut, the size that is left */
    uint32_t length;             /* bytes written */
    uint32_t data;               /* bytes of data behind the names */
    uint16_t kind, name, other;  /* lengths of the name in the folder, and of the one that a rename gives it */
    uint16_t unused;
};

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static size_t folder_length;
static int log_fd = -1, with_data;
static char plan_kind[32], plan_name[NAME_MAX + 1], plan_action[16];
static long plan_left, plan_value;
static int full, broken; /* errno of writes and new files, and of every step, from now on */

void crash_arm(void) {
    const char *text = getenv("CRASH_FOLDER");
    if (!text)
        return;
    snprintf(folder, sizeof folder, "%s/", text);
    folder_length = strlen(folder);
    with_data = getenv("CRASH_DATA") != NULL;
    if ((text = getenv("CRASH_LOG")))
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if ((text = getenv("CRASH_PLAN")) &&
        sscanf(text, "%31s %255s %ld %15s %ld", plan_kind, plan_name, &plan_left, plan_action, &plan_value) != 5) {
        fprintf(stderr, "CRASH_PLAN is not KIND NAME NUMBER ACTION VALUE: %s\n", text);
        abort();
    }
}

__attribute__((constructor)) static void begin(void) { crash_arm(); }

/* Where something is in the folder: its name there, "" for the folder itself, NULL for elsewhere. */

static const char *name_of(const char *path) {
    if (!strncmp(path, folder, folder_length))
        return path + folder_length;
    return !strncmp(path, folder, folder_length - 1) && !path[folder_length - 1] ? "" : NULL;
}

static const char *by_link(const char *link, const char *path, char *room) {
    ssize_t length = readlink(link, room, PATH_MAX - 1);
    if (length < 0)
        return NULL;
    room[length] = 0;
    if (path)
        snprintf(room + length, (size_t)(PATH_MAX - length), "/%s", path);
    return name_of(room);
}

static const char *by_fd(int fd, char *room) {
    char link[40];
    if (!folder_length)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return by_link(link, NULL, room);
}

static const char *by_path(int at, const char *path, char *room) {
    char link[40] = "/proc/self/cwd";
    if (!folder_length || path[0] == '/')
        return folder_length ? name_of(path) : NULL;
    if (at != AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    return by_link(link, path, room);
}

/* What becomes of a step, and the record of it. */

static uint64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

/* 0: do it. -1: it fails, and errno is set. 1: do half of it; a write alone. */
static int judge(int kind, const char *name) {
    int error = broken ? broken : kind == WRITE || kind == CREATE ? full : 0;
    if (error) {
        errno = error;
        return -1;
    }
    if (plan_left <= 0 || (strcmp(plan_kind, "*") && strcmp(plan_kind, KINDS[kind])) ||
        (strcmp(plan_name, "*") && strcmp(plan_name, name)) || --plan_left)
        return 0;
    if (!strcmp(plan_action, "signal")) {
        syscall(SYS_kill, getpid(), (int)plan_value);
        return 0;
    }
    if (!strcmp(plan_action, "full"))
        full = (int)plan_value;
    if (!strcmp(plan_action, "break"))
        broken = (int)plan_value;
    if (kind == WRITE && (full || !strcmp(plan_action, "tear")))
        return 1;
    if (!strcmp(plan_action, "kill") || !strcmp(plan_action, "tear"))
        die();
    errno = (int)plan_value;
    return -1;
}

static void note(int kind, uint64_t begun, uint64_t file, const char *name, const char *other, int64_t offset,
                 const void *data, size_t length) {
    struct record head = {.begun_ns = begun, .ended_ns = now_ns(), .file = file, .offset = offset};
    if (log_fd < 0)
        return;
    head.length = (uint32_t)length;
    head.data = with_data ? (uint32_t)length : 0;
    head.kind = (uint16_t)kind;
    head.name = (uint16_t)strlen(name);
    head.other = (uint16_t)strlen(other);
    struct iovec parts[] = {
        {&head, sizeof head}, {(void *)name, head.name}, {(void *)other, head.other}, {(void *)data, head.data}};
    if (syscall(SYS_writev, log_fd, parts, 4) < 0)
        abort();
}

static uint64_t inode(int fd) {
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_ino;
}

/* A step without data. `call` and what is noted see when it was begun, and what it returned. */
#define STEP(kind, call, file, name, other, size)                                                                      \
    pthread_mutex_lock(&one_at_a_time);                                                                                \
    uint64_t begun = now_ns();                                                                                         \
    int done = judge(kind, name) ? -1 : (int)(call);                                                                   \
    int error = errno;                                                                                                 \
    if (done >= 0)                                                                                                     \
        note(kind, begun, file, name, other, size, NULL, 0);                                                           \
    pthread_mutex_unlock(&one_at_a_time);                                                                              \
    errno = error;                                                                                                     \
    return done

static ssize_t write_step(int fd, const char *name, const void *data, size_t length, off_t offset) {
    pthread_mutex_lock(&one_at_a_time);
    uint64_t begun = now_ns();
    int is_placed = offset >= 0, fate = judge(WRITE, name);
    ssize_t done = -1;
    if (fate >= 0) {
        if (fate)
            length /= 2;
        if (!is_placed)
            offset = lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
        done = is_placed ? syscall(SYS_pwrite64, fd, data, length, offset) : syscall(SYS_write, fd, data, length);
        if (fate && !full)
            die();
        if (done > 0)
            note(WRITE, begun, inode(fd), name, "", offset, data, (size_t)done);
        else if (fate) { /* half of one byte is none */
            errno = full;
            done = -1;
        }
    }
    int error = errno;
    pthread_mutex_unlock(&one_at_a_time);
    errno = error;
    return done;
}

/* What SQLite and Python call. */

static int open_step(int at, const char *path, int flags, mode_t mode) {
    char room[PATH_MAX];
    struct stat before;
    const char *name = flags & (O_CREAT | O_TRUNC) ? by_path(at, path, room) : NULL;
    int is_there = name && !fstatat(at, path, &before, 0);
    if (!name || (is_there && !(flags & O_TRUNC && before.st_size)))
        return (int)syscall(SYS_openat, at, path, flags, mode);
    STEP(is_there ? CUT : CREATE, syscall(SYS_openat, at, path, flags, mode), inode(done), name, "", 0);
}

#define OPEN(function, folder_argument, at)                                                                            \
    int function(folder_argument const char *path, int flags, ...) {                                                   \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return open_step(at, path, flags, mode);                                                                       \
    }
#define NONE
#define FOLDER int at,
OPEN(open, NONE, AT_FDCWD)
OPEN(open64, NONE, AT_FDCWD)
OPEN(openat, FOLDER, at)
OPEN(openat64, FOLDER, at)

ssize_t write(int fd, const void *data, size_t length) {
    char room[PATH_MAX];
    const char *name = by_fd(fd, room);
    return name ? write_step(fd, name, data, length, -1) : syscall(SYS_write, fd, data, length);
}

#define PWRITE(function)                                                                                               \
    ssize_t function(int fd, const void *data, size_t length, off_t offset) {                                          \
        char room[PATH_MAX];                                                                                           \
        const char *name = by_fd(fd, room);                                                                            \
        return name ? write_step(fd, name, data, length, offset) : syscall(SYS_pwrite64, fd, data, length, offset);    \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define FTRUNCATE(function)                                                                                            \
    int function(int fd, off_t size) {                                                                                 \
        char room[PATH_MAX];                                                                                           \
        const char *name = by_fd(fd, room);                                                                            \
        if (!name)                                                                                                     \
            return (int)syscall(SYS_ftruncate, fd, size);                                                              \
        STEP(CUT, syscall(SYS_ftruncate, fd, size), inode(fd), name, "", size);                                        \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

/* Noted, and not done, which saves most of the time: a process that is killed loses nothing of what it wrote, and what a
   power loss leaves is made up from the record. */
#define FSYNC(function, number)                                                                                        \
    int function(int fd) {                                                                                             \
        char room[PATH_MAX];                                                                                           \
        const char *name = by_fd(fd, room);                                                                            \
        if (!name)                                                                                                     \
            return (int)syscall(number, fd);                                                                           \
        STEP(*name ? SYNC : SYNC_FOLDER, 0, inode(fd), name, "", 0);                                                   \
    }
FSYNC(fsync, SYS_fsync)
FSYNC(fdatasync, SYS_fdatasync)

int unlinkat(int at, const char *path, int flags) {
    char room[PATH_MAX];
    struct stat found;
    const char *name = by_path(at, path, room);
    if (!name || fstatat(at, path, &found, AT_SYMLINK_NOFOLLOW))
        return (int)syscall(SYS_unlinkat, at, path, flags);
    STEP(REMOVE, syscall(SYS_unlinkat, at, path, flags), found.st_ino, name, "", 0);
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int renameat(int old_at, const char *old, int new_at, const char *new) {
    char room[PATH_MAX], other_room[PATH_MAX];
    struct stat found;
    const char *name = by_path(old_at, old, room), *other = by_path(new_at, new, other_room);
    if (!name || !other || fstatat(old_at, old, &found, AT_SYMLINK_NOFOLLOW))
        return (int)syscall(SYS_renameat2, old_at, old, new_at, new, 0);
    STEP(RENAME, syscall(SYS_renameat2, old_at, old, new_at, new, 0), found.st_ino, name, other, 0);
}

int rename(const char *old, const char *new) { return renameat(AT_FDCWD, old, AT_FDCWD, new); }
