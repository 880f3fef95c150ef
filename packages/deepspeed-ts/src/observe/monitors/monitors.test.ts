import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { tinyBatch, withEngine } from '../../engine/test-support.js';
import { readEventFile } from './event-reader.js';
import { readWandbFile } from './wandb-reader.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'monitors-'));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const to = (job_name: string, extra: object = {}) => ({ enabled: true, output_path: folder, job_name, ...extra });
const csv = (name: string, job = 'run') =>
  readFileSync(join(folder, job, `Train_Samples_${name}.csv`), 'utf8')
    .trimEnd()
    .split('\n');

const events = (job = 'run') => {
  const [file] = readdirSync(join(folder, job)).filter((name) => name.startsWith('events.out.tfevents.'));
  return readEventFile(readFileSync(join(folder, job, file!)));
};

const wandbRun = () => {
  const [run] = readdirSync(join(folder, 'wandb'));
  const [, id] = /^offline-run-\d{8}_\d{6}-([0-9a-z]{8})$/.exec(run!)!;
  const read = readWandbFile(readFileSync(join(folder, 'wandb', run!, `run-${id}.wandb`)));
  expect(read.id).toBe(id);
  expect(readdirSync(join(folder, 'wandb', run!)).sort()).toEqual(['files', `run-${id}.wandb`]);
  return read;
};

describe('monitors', () => {
  it('write loss and learning rate under the names of DeepSpeed, counted in samples, to event files and CSV alike', async () => {
    const config = { tensorboard: to('run'), csv_monitor: to('run'), gradient_accumulation_steps: 2 };
    const losses: number[] = [];
    await withEngine(config, async (engine) => {
      for (let step = 0; step < 3; step++) losses.push(await engine.trainBatch([tinyBatch(2 * step), tinyBatch(2 * step + 1)]));
    });
    const wanted = [1, 2, 3].flatMap((step) => [
      { samples: 4 * step, name: 'Train/Samples/train_loss', value: losses[step - 1]! },
      { samples: 4 * step, name: 'Train/Samples/lr', value: 0.01 },
    ]);
    const [version, ...written] = events();
    expect(version).toMatchObject({ version: 'brain.Event:2' });
    expect(written.map(({ step, scalars }) => ({ samples: step, name: scalars[0]!.tag, value: scalars[0]!.value }))).toEqual(
      wanted.map(({ value, ...event }) => ({ ...event, value: Math.fround(value) })),
    );
    expect(csv('train_loss')).toEqual(['step,train_loss', ...losses.map((loss, i) => `${4 * (i + 1)},${loss}`)]);
    expect(csv('lr')).toEqual(['step,lr', '4,0.01', '8,0.01', '12,0.01']);
  });

  it('write the loss scale in fp16 and times with wall_clock_breakdown', async () => {
    const config = { csv_monitor: to('run'), fp16: { enabled: true, initial_scale_power: 4 }, wall_clock_breakdown: true };
    await withEngine(config, async (engine) => void (await engine.trainBatch([tinyBatch(0)])));
    expect(csv('loss_scale')).toEqual(['step,loss_scale', '2,16']);
    for (const phase of ['forward', 'backward', 'step'])
      expect(Number(csv(`elapsed_time_ms_${phase}`)[1]!.split(',')[1])).toBeGreaterThan(0);
  });

  it('write the mean over micro-batches where steps are taken by hand', async () => {
    await withEngine({ csv_monitor: to('run'), gradient_accumulation_steps: 2 }, async (engine) => {
      const losses: number[] = [];
      for (const seed of [0, 1]) {
        const loss = engine.forward(tinyBatch(seed));
        losses.push(await loss.item());
        engine.backward(loss);
        await engine.step();
      }
      await engine.dispose();
      expect(csv('train_loss')).toEqual(['step,train_loss', `4,${(losses[0]! + losses[1]!) / 2}`]);
    });
  });

  it('write an offline run of Weights & Biases, with the config in force', async () => {
    const wandb = { enabled: true, output_path: folder, project: 'small', team: 'us', group: 'night' };
    const losses: number[] = [];
    const before = Date.now() / 1000;
    await withEngine({ wandb, steps_per_print: 7 }, async (engine) => {
      for (let step = 0; step < 3; step++) losses.push(await engine.trainBatch([tinyBatch(step)]));
    });
    const read = wandbRun();
    expect(read).toMatchObject({ project: 'small', entity: 'us', group: 'night', exitCode: 0 });
    expect(read.config).toMatchObject({ wandb, steps_per_print: 7, optimizer: expect.anything() });
    const rows = losses.map((loss, i) => ({ _step: 2 * (i + 1), 'Train/Samples/train_loss': loss, 'Train/Samples/lr': 0.01 }));
    expect(read.rows).toMatchObject(rows);
    expect(read.summary).toEqual(read.rows[2]);
    const times = [before, ...read.rows.map(({ _timestamp }) => _timestamp!), Date.now() / 1000];
    expect(times).toEqual([...times].sort((a, b) => a - b));
  });

  it('leave a run that ends without dispose() readable up to its last step, in the project that DeepSpeed defaults to', async () => {
    await withEngine({ wandb: { enabled: true, output_path: folder } }, async (engine) => {
      for (let step = 0; step < 2; step++) await engine.trainBatch([tinyBatch(step)]);
      await vi.waitFor(() => expect(wandbRun().rows.length).toBe(2));
      expect(wandbRun()).toMatchObject({ project: 'deepspeed', exitCode: undefined });
      expect(wandbRun()).not.toHaveProperty('entity');
    });
  });

  it('go on in the CSV files of the run before', async () => {
    for (let run = 0; run < 2; run++) {
      await withEngine({ csv_monitor: to('run') }, async (engine) => void (await engine.trainBatch([tinyBatch(0)])));
    }
    expect(csv('lr')).toEqual(['step,lr', '2,0.01', '2,0.01']);
  });

  it('say once what they can not write, and training goes on', async () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => {});
    writeFileSync(join(folder, 'run'), 'a file where the folder should be');
    const wandb = { enabled: true, output_path: join(folder, 'run') };
    await withEngine({ tensorboard: to('run'), csv_monitor: to('run'), wandb }, async (engine) => {
      for (let step = 0; step < 3; step++) expect(await engine.trainBatch([tinyBatch(step)])).toBeGreaterThan(0);
    });
    const said = warn.mock.calls.map(([line]) => String(line)).sort();
    expect(said).toEqual([
      expect.stringMatching(/^\[csv_monitor\] values could not be written to output_path '.*monitors-.*': E.*Training goes on/),
      expect.stringMatching(/^\[tensorboard\] values could not be written/),
      expect.stringMatching(/^\[wandb\] values could not be written/),
    ]);
  });

  it('end training instead where fail_on_error says so', async () => {
    writeFileSync(join(folder, 'run'), 'a file where the folder should be');
    const steps = withEngine({ csv_monitor: to('run', { fail_on_error: true }) }, async (engine) => {
      for (let step = 0; step < 50; step++) await engine.trainBatch([tinyBatch(step)]);
    });
    await expect(steps).rejects.toMatchObject({ code: 'ERR_MONITOR', message: expect.stringMatching(/csv_monitor.*could not be written/) });
  });
});
