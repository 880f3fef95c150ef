import { afterEach, describe, expect, it, vi } from 'vitest';
import { tinyBatch, withEngine } from '../engine/test-support.js';

afterEach(() => void vi.restoreAllMocks());

async function printed(config: object, steps = 1): Promise<string[]> {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {});
  await withEngine(config, async (engine) => {
    for (let step = 0; step < steps; step++) await engine.trainBatch([tinyBatch(step)]);
  });
  const lines = log.mock.calls.map(([line]) => String(line));
  log.mockRestore();
  return lines;
}

describe('reports', () => {
  it('show MFU, tokens, samples and the time left where they are known', async () => {
    const config = {
      steps_per_print: 1,
      timers: { throughput: { peak_tflops: 1 } },
      scheduler: { type: 'WarmupDecayLR', params: { total_num_steps: 1000 } },
    };
    const [line] = await printed(config);
    expect(line).toMatch(/ {2}MFU \d+\.\d% {2}\d+ tokens\/s {2}\d+\.\d samples\/s {2}peak \d+ MiB\/rank {2}(\d+h)?\d+m(\d\ds)? left$/);
  });

  it('show no rates where throughput is switched off', async () => {
    const [line] = await printed({ steps_per_print: 1, timers: { throughput: { enabled: false } } });
    expect(line).toMatch(/lr \d\S+ {2}peak \d+ MiB\/rank$/);
  });

  it('show the memory of each kind with memory_breakdown', async () => {
    const [text] = await printed({ steps_per_print: 1, memory_breakdown: true });
    const [, ...kinds] = text!.split('\n');
    expect(kinds.map((line) => line.trim().split(/ +/)[0])).toEqual([
      'parameters',
      'gradients',
      'optimizer',
      'activations',
      'communication',
      'data',
      'host',
      'device',
    ]);
    // In f32, with two moments for each weight; 1072 of them, and padding.
    const kibibytes = (line: string) => Number(/([\d.]+) KiB, at most/.exec(line)![1]);
    expect(kibibytes(kinds[0]!)).toBeGreaterThanOrEqual((4 * 1072) / 1024);
    expect(kibibytes(kinds[2]!)).toBe(2 * kibibytes(kinds[0]!));
  });

  it('are not said from log_level warning on', async () => {
    expect(await printed({ steps_per_print: 1, log_level: 'warning', dump_state: true })).toEqual([]);
    expect(await printed({ steps_per_print: 1, log_level: 'INFO' })).toHaveLength(1);
  });
});

describe('dump_state', () => {
  it('says every value in force and what is on the device when the engine is made', async () => {
    const [text] = await printed({ dump_state: true }, 0);
    expect(text).toMatch(/^config in force: \{/);
    expect(text).toMatch(/"gradient_clipping": 1,/);
    expect(text).toMatch(/on the device:\n\d+ bytes of (optimizer|parameters)/);
  });
});

describe('an engine that nobody looks at', () => {
  it('has the communicator it was given, and waits for the device only to report', async () => {
    await withEngine({}, async (engine) => {
      expect(engine.communicator.constructor.name).toBe('WorldOfOne');
      const reads = vi.spyOn(engine.device.backend, 'readSync');
      await engine.trainBatch([tinyBatch(0)]);
      expect(reads).not.toHaveBeenCalled();
      expect(engine.communication.rows()).toEqual([]);
    });
  });
});
