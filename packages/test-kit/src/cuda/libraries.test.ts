import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { cudaLibraries } from '@deepspeed-ts/kernels-cuda';
import { describe, expect, test } from 'vitest';
import { gpus } from './devices.js';

const kernels = new URL('../../../kernels-cuda/src/index.ts', import.meta.url).href;
const core = new URL('../../../core/src/index.ts', import.meta.url).href;
const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;

/** What a process of its own prints: libraries are looked for once in each. */
function inProcess(code: string, env: Readonly<Record<string, string>>): string {
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ['--conditions=@deepspeed-ts/source', '--import', tsx, '--input-type=module', '-e', code],
    { env: { ...process.env, NODE_OPTIONS: '', ...env }, encoding: 'utf8', cwd: fileURLToPath(new URL('..', import.meta.url)) },
  );
  expect(status, stderr).toBe(0);
  return stdout;
}

const missing = '/nonexistent/library.so';

describe.skipIf(gpus() === 0)("NVIDIA's libraries", () => {
  test('are found', () => {
    const { cublasLt, cudnn, nccl } = cudaLibraries();
    for (const [name, { path, reason }] of Object.entries({ cublasLt, cudnn, nccl })) expect(path, `${name}: ${reason}`).toMatch(/\.so/);
  });

  test.each([
    ['cublasLt', 'DEEPSPEED_TS_CUBLASLT_PATH'],
    ['cudnn', 'DEEPSPEED_TS_CUDNN_PATH'],
    ['nccl', 'DEEPSPEED_TS_NCCL_PATH'],
  ])('that are missing are named with the place where they were looked for: %s', (name, variable) => {
    const code = `
      const { cudaLibraries } = await import('${kernels}');
      console.log(JSON.stringify(cudaLibraries()));`;
    const libraries = JSON.parse(inProcess(code, { [variable]: missing })) as Record<string, { path?: string; reason?: string }>;
    expect(libraries[name]!.path).toBeUndefined();
    expect(libraries[name]!.reason).toContain(missing);
  });

  test('a matrix product without cuBLASLt says what is missing and how to name it', () => {
    const code = `
      const { Device, full, matmul } = await import('${core}');
      const { cudaBackend } = await import('${kernels}');
      const device = new Device(cudaBackend());
      const a = full(device, [256, 256], 'bf16', 1);
      try {
        await matmul(a, a).read();
        console.log('no error');
      } catch (error) {
        console.log(error.message);
      }
      process.exit(0);`;
    expect(inProcess(code, { DEEPSPEED_TS_CUBLASLT_PATH: missing })).toMatch(/cuBLASLt.*DEEPSPEED_TS_CUBLASLT_PATH/s);
  });

  test('attention without cuDNN is computed by kernels of our own', () => {
    const code = `
      const { attention, Device, tensor } = await import('${core}');
      const { cudaBackend } = await import('${kernels}');
      const device = new Device(cudaBackend());
      const [tokens, heads, headDim] = [128, 2, 64];
      const values = Float64Array.from({ length: tokens * 3 * heads * headDim }, (_, i) => Math.sin(i * i));
      const qkv = tensor(device, values, 'bf16', [1, tokens, 3 * heads * headDim]);
      const { data } = await attention(qkv, { heads, headDim }).read();
      process.stdout.write(JSON.stringify([...data]), () => process.exit(0));`;
    const [own, library] = [{ DEEPSPEED_TS_CUDNN_PATH: missing }, {}].map((env) => JSON.parse(inProcess(code, env)) as number[]);
    for (const [i, value] of own!.entries()) expect(Math.abs(value - library![i]!)).toBeLessThan(2e-2);
  });
});
