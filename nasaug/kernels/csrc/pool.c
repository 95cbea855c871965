// A thread pool that shares the parts of a job; pool.h explains why it is not OpenMP.

#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#define MOST 256            // threads
#define SPIN_NS 50000       // how long a worker spins before sleeping: about Python's time between two jobs
#define CLOSED UINT32_MAX   // the ticket's part while the next job is being set up

// The ticket holds the job's number (upper half) and its next part. A part is claimed by a compare-and-swap that
// increments the ticket. It fails if the job has changed, so data read before a successful claim belong to that job.
static _Atomic uint64_t ticket = CLOSED;
static _Atomic(Work) work_now;
static _Atomic(const void *) job_now;
static _Atomic long parts_now, done;
static _Atomic int threads_now, sleeping, used;
static uint32_t number;     // of the last job
static int workers;         // threads beside the callers
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER;

static inline void relax(void) {
#ifdef __x86_64__
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

// Claims and does parts of the current job until none is left; returns the last ticket.
static uint64_t take_parts(int thread) {
    for (;;) {
        uint64_t seen = ticket;
        const void *job = job_now;
        Work work = work_now;
        long part = (long)(uint32_t)seen;
        if (part >= parts_now || thread >= threads_now) return seen;
        if (!atomic_compare_exchange_strong(&ticket, &seen, seen + 1)) continue;
        work(job, part, thread);
        done++;
    }
}

static void *serve(void *given) {
    int thread = (int)(intptr_t)given;
    for (;;) {
        uint64_t seen = take_parts(thread);
        int64_t until = now_ns() + SPIN_NS;
        while (ticket == seen && now_ns() < until)
            for (int i = 0; i < 16 && ticket == seen; i++) relax();
        if (ticket != seen) continue;
        pthread_mutex_lock(&lock);
        sleeping = 1;
        while (ticket == seen) pthread_cond_wait(&woken, &lock);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

// A forked process has no workers and no job in progress.
static void forget(void) {
    workers = 0;
    used = sleeping = 0;
    ticket = CLOSED;
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&woken, NULL);
}

static void start_workers(int wanted) {
    static int forks_known;
    if (!forks_known) forks_known = !pthread_atfork(NULL, NULL, forget);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // workers must not receive signals
    while (workers < wanted) {
        pthread_t made;
        if (pthread_create(&made, NULL, serve, (void *)(intptr_t)(workers + 1))) break;  // continue with fewer
        pthread_detach(made);
        workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void alone(Work work, const void *job, long parts) {
    for (long part = 0; part < parts; part++) work(job, part, 0);
}

void share(Work work, const void *job, long parts, int threads) {
    if (threads > MOST) threads = MOST;
    if (threads < 2 || parts < 2 || atomic_exchange(&used, 1)) {  // the latter: the pool is in use, so run alone
        alone(work, job, parts);
        return;
    }
    if (workers < threads - 1) start_workers(threads - 1);
    ticket = (uint64_t)++number << 32 | CLOSED;
    work_now = work;
    job_now = job;
    parts_now = parts;
    threads_now = threads;
    done = 0;
    ticket = (uint64_t)number << 32;
    if (sleeping) {
        pthread_mutex_lock(&lock);
        sleeping = 0;
        pthread_cond_broadcast(&woken);
        pthread_mutex_unlock(&lock);
    }
    take_parts(0);
    for (long i = 0; done < parts; i++)  // wait for parts in progress
        if (i < 10000) relax();
        else sched_yield();
    used = 0;
}
