import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';

const kernels = new URL('../../../kernels-cuda/src/index.ts', import.meta.url).href;
const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;

// CUDA_VISIBLE_DEVICES hides GPUs where there are some, so this runs everywhere.
test('a process without a GPU loads the package, sees no devices, and is told why when it wants one', () => {
  const code = `
    const { cudaBackend, cudaDevices, whyNoCuda } = await import('${kernels}');
    const result = { devices: cudaDevices(), why: whyNoCuda() };
    try {
      cudaBackend();
    } catch ({ code, message }) {
      result.error = { code, message };
    }
    console.log(JSON.stringify(result));`;
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ['--conditions=@deepspeed-ts/source', '--import', tsx, '--input-type=module', '-e', code],
    { env: { ...process.env, NODE_OPTIONS: '', CUDA_VISIBLE_DEVICES: '' }, encoding: 'utf8' },
  );
  expect(status, stderr).toBe(0);
  const { devices, why, error } = JSON.parse(stdout) as { devices: unknown[]; why: string; error: { code: string; message: string } };
  expect(devices).toEqual([]);
  expect(why).toBeTruthy();
  // The addon may not be built on this machine either; then that is what is said.
  expect(['ERR_NO_DEVICE', 'ERR_NATIVE_LOAD']).toContain(error.code);
  expect(error.message).toMatch(/^\[cuda\] /);
  expect(error.message).toMatch(/driver|GPU|kernels-cuda/);
});
