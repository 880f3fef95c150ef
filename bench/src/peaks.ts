import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What the machine can do at a number of threads. */
export interface Peaks {
  readonly threads: number;
  readonly fmaGflops: number;
  readonly triadGBs: number;
  readonly readGBs: number;
  /** Four arrays read and three written: AdamW's traffic without its arithmetic. */
  readonly adamStreamGBs: number;
  readonly copyGBs: number;
}

/** Compiles the probe for this machine and runs it. */
export function measurePeaks(threads: number): Peaks {
  const source = fileURLToPath(new URL('../native/peaks.cc', import.meta.url));
  const folder = mkdtempSync(join(tmpdir(), 'peaks-'));
  try {
    mkdirSync(folder, { recursive: true });
    const program = join(folder, 'peaks');
    execFileSync('g++', ['-std=c++17', '-O3', '-march=native', '-pthread', source, '-o', program]);
    return JSON.parse(execFileSync(program, [String(threads)], { encoding: 'utf8' })) as Peaks;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
