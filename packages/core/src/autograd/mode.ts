let recording = true;

export function isRecording(): boolean {
  return recording;
}

/** Runs `body` without recording for backward: evaluation, generation, and the backward pass itself. */
export function noGrad<T>(body: () => T): T {
  return withRecording(false, body);
}

export function withRecording<T>(on: boolean, body: () => T): T {
  const outer = recording;
  recording = on;
  try {
    return body();
  } finally {
    recording = outer;
  }
}
