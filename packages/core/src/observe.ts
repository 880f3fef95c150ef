import type { View } from './backend/backend.js';
import type { Module } from './nn/module.js';

/** Who looks on while a pass runs: a profiler, a trace. */
export interface ExecutionObserver {
  /** Around the forward pass of a module. */
  module<T>(module: Module, run: () => T): T;
  /** An operation was put on the tape; an object that stands for it. */
  recorded(operation: object): void;
  /** Around the backward pass of a recorded operation. */
  backward(operation: object, run: () => void): void;
  /** A kernel, or its stand-in on the host, is queued. */
  launched(op: string, inputs: readonly View[], outputs: readonly View[], attrs: Readonly<Record<string, number>>): void;
}

let current: ExecutionObserver | undefined;

export function executionObserver(): ExecutionObserver | undefined {
  return current;
}

/** Runs `body` under the eyes of `observer`; nobody else looks on meanwhile. */
export function withExecutionObserver<T>(observer: ExecutionObserver, body: () => T): T {
  const outer = current;
  current = observer;
  try {
    return body();
  } finally {
    current = outer;
  }
}
