import { expect, it } from 'vitest';
import { readArguments } from './arguments.js';
import { type CallbackContext, TrainerControl } from './callbacks.js';
import { ProgressCallback, progressLine } from './progress.js';
import { TrainerState } from './state.js';

const control = new TrainerControl();
const engine = { device: { backend: { memory: () => ({ peak: 2 ** 30 }) } } };
const context = (logs?: Record<string, number>) => ({ engine, logs }) as unknown as CallbackContext;

function streams(isTTY: boolean) {
  const written = { terminal: '', lines: '' };
  const to = (name: keyof typeof written) => ({ isTTY, columns: 100, write: (text: string) => (written[name] += text) });
  return { written, streams: { terminal: to('terminal'), lines: to('lines') } };
}

function stateAt(step: number, first = true): TrainerState {
  return Object.assign(new TrainerState(first), { globalStep: step, maxSteps: 50 });
}

it('shows how far it is, how fast, how long it will take, the loss, and memory', () => {
  const pace = { elapsed: 10_000, since: 1, loss: 2.3456, peak: 812 * 2 ** 20 };
  expect(progressLine(stateAt(21), pace)).toBe(' 42% |##########--------------|  21/50  2.0 steps/s  0:15 left  loss 2.346  peak 812 MiB');
  expect(progressLine(stateAt(2), { ...pace, elapsed: 90_000 })).toContain('90.0 s/step  1:12:00 left');
});

it('draws a bar on a terminal, and prints what is logged above it', () => {
  const { written, streams: both } = streams(true);
  const progress = new ProgressCallback(both);
  const { args } = readArguments({});
  progress.onTrainBegin(args, stateAt(0));
  progress.onLog(args, stateAt(1), control, context({ loss: 1.5, learning_rate: 5e-5 }));
  progress.onStepEnd(args, stateAt(1), control, context());
  // Each line ends with what clears the rest of the one before.
  const [log, bar] = written.terminal.replaceAll('\x1b[K', '').split('\n');
  expect(log).toBe('\rloss 1.5  learning_rate 5.00e-5');
  expect(bar).toMatch(/^\r {2}2% \|-{24}\| {2}1\/50 .* loss 1\.500 {2}peak 1024 MiB$/);
  expect(written.lines).toBe('');
});

it('prints a line of JSON for each log elsewhere, or where the bar is not wanted', () => {
  for (const [tty, args] of [
    [false, {}],
    [true, { disableTqdm: true }],
  ] as const) {
    const { written, streams: both } = streams(tty);
    const progress = new ProgressCallback(both);
    progress.onTrainBegin(readArguments(args).args, stateAt(0));
    progress.onStepEnd(readArguments(args).args, stateAt(3), control, context());
    progress.onLog(readArguments(args).args, stateAt(3), control, context({ loss: 1.5, epoch: 0.5 }));
    expect(written).toEqual({ terminal: '', lines: '{"loss":1.5,"epoch":0.5,"step":3}\n' });
  }
});

it('is silent on other ranks', () => {
  const { written, streams: both } = streams(true);
  const progress = new ProgressCallback(both);
  const { args } = readArguments({});
  progress.onTrainBegin(args, stateAt(0, false));
  progress.onStepEnd(args, stateAt(1, false), control, context());
  progress.onLog(args, stateAt(1, false), control, context({ loss: 1 }));
  expect(written).toEqual({ terminal: '', lines: '' });
});
