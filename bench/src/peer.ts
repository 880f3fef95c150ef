import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { gptShape, trainingProducts } from './shapes.js';

/** What PyTorch does on the same shapes at the same number of threads. */
export interface PeerResult {
  readonly version: string;
  /** GFLOP/s for each of `trainingProducts`. */
  readonly gemm: readonly number[];
  readonly adamwGBs: number;
  /** Milliseconds of one GPT step, median. */
  readonly gptStepMs: number;
}

/** Runs the peer with the Python in BENCH_PYTHON, where that is set and has PyTorch. The library itself never needs it. */
export function runPeer(threads: number): PeerResult | undefined {
  const python = process.env.BENCH_PYTHON;
  if (!python) return undefined;
  const script = fileURLToPath(new URL('../peers/torch_cpu.py', import.meta.url));
  const input = JSON.stringify({ threads, products: trainingProducts, gpt: gptShape });
  return JSON.parse(execFileSync(python, [script], { input, encoding: 'utf8', stdio: ['pipe', 'pipe', 'inherit'] })) as PeerResult;
}
