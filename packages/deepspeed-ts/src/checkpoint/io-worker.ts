import { MessageChannel, parentPort } from 'node:worker_threads';
import { type Job, perform } from './io/job.js';
import type { Answer, Numbered } from './io/threads.js';

// A thread that writes and checks parts of files, one job after the other: system calls wait here, and the JavaScript of training goes on.

/** What is sent to a port that nobody has is freed at once. Garbage collection may leave a whole snapshot lying around: this thread makes no other garbage. */
const nowhere = new MessageChannel();
nowhere.port2.close();

parentPort!.on('message', ({ id, job }: Numbered<Job>) => {
  parentPort!.postMessage(answer(id, job));
  if (job.kind === 'write') nowhere.port1.postMessage(null, [...new Set(job.pieces.map(({ buffer }) => buffer as ArrayBuffer))]);
});

function answer(id: number, job: Job): Answer {
  try {
    return { id, digest: perform(job) };
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException;
    return { id, error: { code, message } };
  }
}
