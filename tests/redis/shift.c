/* Preloaded into redis-server: its wall clock is the machine's plus an offset that a test sets while it runs.
 *
 * Redis takes the time of leases, delays and expiry from its own machine, and a test cannot wait 30 days. libfaketime
 * does the same for any program, but deadlocks in Redis: it allocates while jemalloc asks for the time. This allocates
 * nothing. Monotonic clocks are left alone: they measure how long something took, and no time is taken by a shift.
 *
 * The offset, in microseconds, is the first eight bytes of the file named by REDIS_CLOCK_SHIFT. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift;

__attribute__((constructor)) static void find_shift(void) {
  const char *path = getenv("REDIS_CLOCK_SHIFT");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *page = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
  if (page != MAP_FAILED) shift = page;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  /* The raw call: asking libc would come back here. */
  int result = (int)syscall(SYS_clock_gettime, clock, at);
  if (result == 0 && shift && clock == CLOCK_REALTIME) {
    int64_t us = *shift;
    int64_t ns = at->tv_nsec + us % 1000000 * 1000;
    at->tv_sec += us / 1000000 + ns / 1000000000;
    at->tv_nsec = ns % 1000000000;
  }
  return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  (void)zone; /* obsolete */
  struct timespec now;
  int result = clock_gettime(CLOCK_REALTIME, &now);
  if (result == 0) {
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
  }
  return result;
}

time_t time(time_t *at) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return (time_t)-1;
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
