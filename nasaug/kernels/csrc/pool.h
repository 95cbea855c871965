// Threads that share the parts of a job.

#pragma once

// Does part `part` of a job on thread `thread`, counted from 0, whose own working space it may use.
typedef void (*Work)(const void *job, long part, int thread);

// Does parts 0 to parts - 1 of a job on at most `threads` threads, the calling one among them.
//
// A thread takes the next part when it is ready for one, and the caller waits for parts that were begun, never for a
// thread. With OpenMP, whose regions end when each of their threads has arrived, a thread that had slept came late by a
// time slice of whatever else ran on its core: beside one busy process a training took six times as long
// (docs/performance.md). Which thread does a part must not change what comes out.
void share(Work work, const void *job, long parts, int threads);
