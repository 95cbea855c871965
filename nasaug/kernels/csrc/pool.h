// A thread pool that shares the parts of a job.

#pragma once

// Does part `part` of a job on thread `thread`, counted from 0, whose scratch memory it may use.
typedef void (*Work)(const void *job, long part, int thread);

// Does parts 0 to parts - 1 of a job on at most `threads` threads, including the calling one.
//
// Threads claim parts dynamically, and the caller waits only for parts in progress, never for a thread to wake up. An
// OpenMP region ends when all its threads have arrived, so a thread that slept delayed it by a time slice of whatever
// else ran on its core: next to one busy process, training took six times as long (docs/explanation/performance.md). Results must
// not depend on which thread does a part.
void share(Work work, const void *job, long parts, int threads);
