/* Steps of the clocks and threads that cannot be had, for a process that is started with LD_PRELOAD.
   STEP_AT seconds after the start, the wall clock is moved by STEP and the monotonic one by LEAP seconds;
   from then on, no thread can be started while there are THREADS of them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real_clock)(clockid_t, struct timespec *);
static int (*real_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
static double step_at, step, leap;
static long threads = -1;
static atomic_long alive;
static struct timespec began;

static double of(const char *name) {
    const char *text = getenv(name);
    return text == NULL ? 0.0 : atof(text);
}

__attribute__((constructor)) static void begin(void) {
    real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    real_create = dlsym(RTLD_NEXT, "pthread_create");
    step_at = of("STEP_AT"), step = of("STEP"), leap = of("LEAP");
    if (getenv("THREADS") != NULL) threads = (long)of("THREADS");
    real_clock(CLOCK_MONOTONIC, &began);
}

static int is_over(void) {
    struct timespec now;
    real_clock(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - began.tv_sec) + (now.tv_nsec - began.tv_nsec) / 1e9 >= step_at;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    if (real_clock == NULL) begin();
    int code = real_clock(id, at);
    if (code != 0 || !is_over()) return code;
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) at->tv_sec += (time_t)step;
    if (id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE) at->tv_sec += (time_t)leap;
    return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int code = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec, at->tv_usec = now.tv_nsec / 1000;
    return code;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL) *at = now.tv_sec;
    return now.tv_sec;
}

struct start {
    void *(*run)(void *);
    void *with;
};

static void ended(void *unused) {
    (void)unused;
    atomic_fetch_sub(&alive, 1);
}

static void *counted(void *given) {
    struct start start = *(struct start *)given;
    void *result;
    free(given);
    pthread_cleanup_push(ended, NULL);
    result = start.run(start.with);
    pthread_cleanup_pop(1);
    return result;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *with) {
    if (real_create == NULL) begin();
    if (threads >= 0 && is_over() && atomic_load(&alive) >= threads) return EAGAIN;
    struct start *start = malloc(sizeof *start);
    start->run = run, start->with = with;
    atomic_fetch_add(&alive, 1);
    int code = real_create(thread, attributes, counted, start);
    if (code != 0) ended(NULL), free(start);
    return code;
}
