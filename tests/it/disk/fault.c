/* A disk that fails when a test says so. While the file $FAULT_FLAG exists and holds an errno:
   with $FAULT_SYNC, fsync and fdatasync of the write-ahead log fail with it;
   with $FAULT_WRITE, writes to the log fail with it;
   with $FAULT_FOLD_SYNC, fsync and fdatasync of the database itself fail with it, which happens only when the log is folded;
   with $FAULT_FOLD_WRITE, writes to the database itself fail with it;
   with $FAULT_ONCE, the flag is removed by the first failure: the next try succeeds, as fsync does after what it has lost;
   with $FAULT_FULL, writes to the log fail with it while the file $FAULT_FULL has a size, and that file cannot be synced:
   a full disk with a ballast on it.
   Instead of the file, $FAULT_AT: the call of that number alone fails, with the errno $FAULT_ERRNO; with $FAULT_FILE it is
   the file with that ending that fails, and not the log. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int nth(const char *at) {
  static int calls;
  const char *error = getenv("FAULT_ERRNO");
  int number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
  return number == atoi(at) ? (error ? atoi(error) : EIO) : 0;
}

static int flag(void) {
  const char *at = getenv("FAULT_AT");
  if (at) return nth(at);
  const char *path = getenv("FAULT_FLAG");
  FILE *file = path ? fopen(path, "r") : NULL;
  int error = 0;
  if (!file) return 0;
  if (fscanf(file, "%d", &error) != 1) error = EIO;
  fclose(file);
  return error;
}

static int ends(int fd, const char *ending) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  size_t most = strlen(ending);
  return (size_t)length >= most && strcmp(path + length - most, ending) == 0;
}

static int fold_error(int fd, const char *how) {
  if (!getenv(how) || !ends(fd, "nightshift.db")) return 0;
  int error = flag();
  if (error && getenv("FAULT_ONCE")) unlink(getenv("FAULT_FLAG"));
  return error;
}

static int fails(int fd) {
  const char *file = getenv("FAULT_FILE");
  return ends(fd, file ? file : "-wal");
}

static int sync_error(int fd) {
  int fold = fold_error(fd, "FAULT_FOLD_SYNC");
  if (fold) return fold;
  if (getenv("FAULT_SYNC") && fails(fd)) return flag();
  const char *full = getenv("FAULT_FULL");
  return full && ends(fd, full) ? flag() : 0;
}

static int write_error(int fd) {
  int fold = fold_error(fd, "FAULT_FOLD_WRITE");
  if (fold) return fold;
  if (!fails(fd)) return 0;
  if (getenv("FAULT_WRITE")) return flag();
  const char *full = getenv("FAULT_FULL");
  struct stat found;
  return full && stat(full, &found) == 0 && found.st_size > 0 ? flag() : 0;
}

int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  int error = sync_error(fd);
  if (error) { errno = error; return -1; }
  return real(fd);
}

int fdatasync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
  int error = sync_error(fd);
  if (error) { errno = error; return -1; }
  return real(fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
  int error = write_error(fd);
  if (error) { errno = error; return -1; }
  return real(fd, bytes, count, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }
