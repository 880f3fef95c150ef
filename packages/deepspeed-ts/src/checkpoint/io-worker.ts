import { parentPort } from 'node:worker_threads';
import { type Job, perform } from './io/job.js';
import type { Answer, Numbered } from './io/threads.js';

// A thread that writes and hashes parts of files, one job after the other: system calls wait here, and the JavaScript of training goes on.

parentPort!.on('message', ({ id, job }: Numbered<Job>) => {
  parentPort!.postMessage(answer(id, job));
});

function answer(id: number, job: Job): Answer {
  try {
    return { id, digest: perform(job) };
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException;
    return { id, error: { code, message } };
  }
}
