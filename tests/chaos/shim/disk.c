/* A disk with faults, for one process: stands before the C library's file calls (LD_PRELOAD).

   CHAOS_PREFIX  only files whose path begins with this are touched
   CHAOS_TRACE   file that gets a record of every change, in the order in which the process made them
   CHAOS_FAULTS  faults, separated by spaces: CALL:PART:FROM:TIMES:ERRNO:MILLISECONDS
                 from the FROM-th CALL (write, fsync, rename, unlink, open, ftruncate, close) on a path that holds PART,
                 TIMES times (0: for ever): wait so long, then fail with ERRNO (0: do not fail; -1: write one byte less)

   A record is: call (1 byte), length of the path (4), path, length of the data (4), data, offset or size (8),
   monotonic nanoseconds (8). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST_FD 4096
#define MOST_FAULTS 16

struct fault { char call[16], part[128]; long from, times, met; int error, wait_ms; };

static struct fault faults[MOST_FAULTS];
static int fault_count, trace_fd = -1;
static char prefix[1024], paths[MOST_FD][512];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_close)(int), (*real_unlink)(const char *);
static int (*real_mkdir)(const char *, mode_t);
static int (*real_rename)(const char *, const char *), (*real_ftruncate)(int, off64_t);
static int (*real_open)(const char *, int, ...), (*real_openat)(int, const char *, int, ...);

__attribute__((constructor)) static void begin(void) {
  real_write = dlsym(RTLD_NEXT, "write");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_close = dlsym(RTLD_NEXT, "close");
  real_mkdir = dlsym(RTLD_NEXT, "mkdir");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  real_rename = dlsym(RTLD_NEXT, "rename");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
  real_open = dlsym(RTLD_NEXT, "open64");
  real_openat = dlsym(RTLD_NEXT, "openat64");
  const char *told = getenv("CHAOS_PREFIX");
  if (told) snprintf(prefix, sizeof prefix, "%s", told);
  told = getenv("CHAOS_TRACE");
  if (told) trace_fd = real_open(told, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  told = getenv("CHAOS_FAULTS");
  while (told && *told && fault_count < MOST_FAULTS) {
    struct fault *f = &faults[fault_count];
    if (sscanf(told, "%15[^:]:%127[^:]:%ld:%ld:%d:%d", f->call, f->part, &f->from, &f->times, &f->error, &f->wait_ms) == 6)
      fault_count++;
    told = strchr(told, ' ');
    if (told) told++;
  }
}

static int mine(const char *path) { return *prefix && path && strncmp(path, prefix, strlen(prefix)) == 0; }
static const char *path_of(int fd) { return fd >= 0 && fd < MOST_FD && *paths[fd] ? paths[fd] : NULL; }

static void record(char call, const char *path, const void *data, size_t length, int64_t number) {
  if (trace_fd < 0) return;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t ns = now.tv_sec * 1000000000LL + now.tv_nsec;
  uint32_t path_length = strlen(path), data_length = length;
  size_t whole = 1 + 4 + path_length + 4 + length + 8 + 8;
  char *buffer = malloc(whole), *at = buffer;
  *at++ = call;
  memcpy(at, &path_length, 4); at += 4;
  memcpy(at, path, path_length); at += path_length;
  memcpy(at, &data_length, 4); at += 4;
  if (length) memcpy(at, data, length);
  at += length;
  memcpy(at, &number, 8); at += 8;
  memcpy(at, &ns, 8);
  real_write(trace_fd, buffer, whole);
  free(buffer);
}

/* 0: go on; an errno: fail with it; -1: write less. */
static int struck(const char *call, const char *path) {
  int error = 0, wait_ms = 0;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < fault_count; i++) {
    struct fault *f = &faults[i];
    if (strcmp(f->call, call) || !strstr(path, f->part)) continue;
    f->met++;
    if (f->met < f->from || (f->times && f->met >= f->from + f->times)) continue;
    if (f->error) error = f->error;
    wait_ms += f->wait_ms;
  }
  pthread_mutex_unlock(&lock);
  if (wait_ms) {
    struct timespec rest = {wait_ms / 1000, (wait_ms % 1000) * 1000000L};
    while (nanosleep(&rest, &rest) && errno == EINTR) {}
  }
  return error;
}

static int opened(int fd, const char *path, int flags, int was_there) {
  if (fd < 0 || fd >= MOST_FD) return fd;
  if (!mine(path)) { *paths[fd] = 0; return fd; }
  snprintf(paths[fd], sizeof paths[fd], "%s", path);
  if ((flags & O_CREAT) && !was_there) record('O', path, NULL, 0, 0);
  if (flags & O_TRUNC) record('T', path, NULL, 0, 0);
  return fd;
}

static int open_any(int folder, const char *path, int flags, mode_t mode) {
  struct stat found;
  int was_there = 0;
  if (mine(path)) {
    int error = struck("open", path);
    if (error > 0) { errno = error; return -1; }
    was_there = stat(path, &found) == 0;
  }
  int fd = folder == AT_FDCWD ? real_open(path, flags, mode) : real_openat(folder, path, flags, mode);
  return opened(fd, path, flags, was_there);
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int open(const char *path, int flags, ...) { MODE return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return open_any(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE return open_any(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE return open_any(folder, path, flags, mode); }

ssize_t write(int fd, const void *data, size_t length) {
  const char *path = path_of(fd);
  if (!path) return real_write(fd, data, length);
  int error = struck("write", path);
  if (error > 0) { errno = error; return -1; }
  if (error < 0 && length > 1) length -= 1;
  ssize_t done = real_write(fd, data, length);
  if (done > 0) record('W', path, data, done, lseek(fd, 0, SEEK_CUR) - done);
  return done;
}

int ftruncate64(int fd, off64_t size) {
  const char *path = path_of(fd);
  int error = path ? struck("ftruncate", path) : 0;
  if (error > 0) { errno = error; return -1; }
  int done = real_ftruncate(fd, size);
  if (path && !done) record('T', path, NULL, 0, size);
  return done;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int sync_any(int fd, int (*real)(int)) {
  const char *path = path_of(fd);
  int error = path ? struck("fsync", path) : 0;
  if (error > 0) { errno = error; return -1; }
  int done = real(fd);
  if (path && !done) record('S', path, NULL, 0, 0);
  return done;
}
int fsync(int fd) { return sync_any(fd, real_fsync); }
int fdatasync(int fd) { return sync_any(fd, real_fdatasync); }

int rename(const char *from, const char *to) {
  if (!mine(to)) return real_rename(from, to);
  int error = struck("rename", to);
  if (error > 0) { errno = error; return -1; }
  int done = real_rename(from, to);
  if (!done) {
    record('R', from, to, strlen(to), 0);
    for (int fd = 0; fd < MOST_FD; fd++)
      if (!strcmp(paths[fd], from)) snprintf(paths[fd], sizeof paths[fd], "%s", to);
  }
  return done;
}

int unlink(const char *path) {
  if (!mine(path)) return real_unlink(path);
  int error = struck("unlink", path);
  if (error > 0) { errno = error; return -1; }
  int done = real_unlink(path);
  if (!done) record('U', path, NULL, 0, 0);
  return done;
}

int mkdir(const char *path, mode_t mode) {
  int done = real_mkdir(path, mode);
  if (!done && mine(path)) record('M', path, NULL, 0, 0);
  return done;
}

int close(int fd) {
  const char *path = path_of(fd);
  int error = path ? struck("close", path) : 0;
  if (fd >= 0 && fd < MOST_FD) *paths[fd] = 0;
  int done = real_close(fd);
  if (error > 0) { errno = error; return -1; }
  return done;
}
