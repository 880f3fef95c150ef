import { closeSync, constants, fsyncSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type Device, full, namedParameters } from '@deepspeed-ts/core';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { type DeepSpeedEngine, initialize } from 'deepspeed-ts';
import { report } from './measure.js';

/** Parameters of 12 bytes each, in f32 with the states of AdamW: about 1.5 GB. */
const MODEL = { vocabSize: 50257, layers: 12, heads: 12, dim: 768, context: 256 };
const ROUNDS = 3;
const BLOCK = 4 * 2 ** 20;
const READ = 16 * 2 ** 20;

/** Direct writes want memory that begins at a page, as that of WebAssembly does. */
const { WebAssembly } = globalThis as unknown as { WebAssembly: { Memory: new (size: { initial: number }) => { buffer: ArrayBuffer } } };

interface Round {
  readonly diskWriteGBs: number;
  readonly diskReadGBs: number;
  readonly copyMs: number;
  readonly blockedMs: number;
  /** From the end of the copy until it is safe on disk under its name. */
  readonly writeGBs: number;
  readonly delayMs: number;
  readonly loadGBs: number;
}

/**
 * Saving and loading a GPT-2 in f32 on one rank, in BENCH_DIRECTORY or the system's temporary folder. Beside the write stands what the disk takes
 * in one sequential stream of the same size (past the page cache, or through it with an fsync, whichever is faster); beside the time that
 * saveCheckpoint blocks, a bare copy of the same state to the host; beside loading, one sequential stream past the page cache. No checkpoint
 * replaces another: to take away the files of an old one is no part of writing.
 */
export async function benchCheckpoint(): Promise<void> {
  const directory = mkdtempSync(join(process.env.BENCH_DIRECTORY ?? tmpdir(), 'bench-checkpoint-'));
  const config = { train_micro_batch_size_per_gpu: 1, optimizer: { type: 'AdamW', params: { lr: 1e-3 } } };
  const { engine } = await initialize({ model: new DecoderLM(gpt2(MODEL)), config });
  try {
    const rounds: Round[] = [];
    const sizes = [...namedParameters(engine.model).values()].map(({ numel }) => 12 * numel);
    for (let i = 0; i < ROUNDS; i++) rounds.push(await measure(engine, mkdtempSync(join(directory, 'round-')), sizes));
    const bytes = sum(sizes);
    const median = (key: keyof Round) => rounds.map((round) => round[key]).sort((a, b) => a - b)[ROUNDS >> 1]!;
    const beside = (rate: number, disk: number) => ({ GB: bytes / 1e9, GBs: rate, diskGBs: disk, ofDisk: rate / disk });
    const [copy, blocked] = [median('copyMs'), median('blockedMs')];
    report({ bench: 'checkpoint write', ...beside(median('writeGBs'), median('diskWriteGBs')) });
    report({ bench: 'checkpoint blocks', ms: blocked, copyMs: copy, ofCopy: blocked / copy, eventLoopDelayMs: median('delayMs') });
    report({ bench: 'checkpoint load', ...beside(median('loadGBs'), median('diskReadGBs')) });
  } finally {
    await engine.dispose();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function measure(engine: DeepSpeedEngine, directory: string, sizes: readonly number[]): Promise<Round> {
  const bytes = sum(sizes);
  const file = join(directory, 'disk');
  const buffered = writeStreamGBs(file, bytes, false);
  const direct = writeStreamGBs(file, bytes, true);
  const diskReadGBs = readStreamGBs(file);
  rmSync(file);
  const copyMs = await copyTime(engine.device, sizes);

  const delay = monitorEventLoopDelay({ resolution: 1 });
  const start = performance.now();
  const saved = await engine.saveCheckpoint(directory, { tag: 'bench' });
  const blockedMs = performance.now() - start;
  delay.enable();
  await saved.finished;
  delay.disable();
  const writeGBs = bytes / (performance.now() - start - blockedMs) / 1e6;

  const loadMs = await timed(() => engine.loadCheckpoint(directory));
  rmSync(directory, { recursive: true });
  return {
    diskWriteGBs: Math.max(buffered, direct),
    diskReadGBs,
    copyMs,
    blockedMs,
    writeGBs,
    delayMs: delay.max / 1e6,
    loadGBs: bytes / loadMs / 1e6,
  };
}

/** What a snapshot takes at least: as many bytes in tensors of the same sizes, copied to host memory that is new. */
async function copyTime(device: Device, sizes: readonly number[]): Promise<number> {
  const tensors = sizes.map((bytes) => full(device, [bytes / 4], 'f32', 1));
  await device.backend.synchronize();
  const ms = await timed(() => {
    const reads = tensors.flatMap(({ handle, byteOffset, byteLength }) =>
      Array.from({ length: Math.ceil(byteLength / READ) }, (_, i) =>
        device.backend.read(handle, byteOffset + i * READ, Math.min(READ, byteLength - i * READ)),
      ),
    );
    return Promise.all(reads);
  });
  for (const tensor of tensors) tensor.dispose();
  return ms;
}

/** Writes a file from one thread, from its beginning to its end, until it is on disk. */
function writeStreamGBs(path: string, bytes: number, direct: boolean): number {
  const block = alignedBlock();
  const file = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | (direct ? (constants.O_DIRECT ?? 0) : 0));
  const start = performance.now();
  for (let at = 0; at < bytes; at += BLOCK) writeSync(file, block, 0, BLOCK, at);
  fsyncSync(file);
  const rate = bytes / (performance.now() - start) / 1e6;
  closeSync(file);
  return rate;
}

/** Reads a file from one thread, past the page cache. */
function readStreamGBs(path: string): number {
  const block = alignedBlock();
  const file = openSync(path, constants.O_RDONLY | (constants.O_DIRECT ?? 0));
  const start = performance.now();
  let at = 0;
  for (let count = BLOCK; count === BLOCK; at += count) count = readSync(file, block, 0, BLOCK, at);
  const rate = at / (performance.now() - start) / 1e6;
  closeSync(file);
  return rate;
}

function alignedBlock(): Uint8Array {
  return new Uint8Array(new WebAssembly.Memory({ initial: BLOCK / 65536 }).buffer).fill(7);
}

async function timed(body: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await body();
  return performance.now() - start;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
