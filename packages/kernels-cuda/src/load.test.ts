import { describe, expect, it } from 'vitest';
import { type LoaderHost, loadNative, platformPackage } from './load.js';

const local = '/package/build/Release/kernels_cuda.node';
const name = '@deepspeed-ts/kernels-cuda-linux-x64-gnu';

/** A machine on which only these modules exist. */
function host(modules: Record<string, unknown>, env: LoaderHost['env'] = {}): LoaderHost {
  const require = (id: string) => {
    const found = modules[id];
    if (found instanceof Error) throw found;
    if (found === undefined) throw Object.assign(new Error(`Cannot find module '${id}'`), { code: 'MODULE_NOT_FOUND' });
    return found;
  };
  return { env, platform: 'linux', arch: 'x64', version: '1.2.3', localBuild: local, require };
}

describe('loadNative', () => {
  it('prefers the build from source to the platform package', () => {
    const [built, packaged] = [{ version: '1.2.3' }, { version: '1.2.3' }];
    expect(loadNative(host({ [local]: built, [name]: packaged }))).toBe(built);
    expect(loadNative(host({ [name]: packaged }))).toBe(packaged);
  });

  it('says everything that it tried, and what helps', () => {
    const load = () => loadNative(host({ [local]: { version: '1.0.0' } }));
    expect(load).toThrow(/kernels_cuda\.node: is version 1\.0\.0, but @deepspeed-ts\/kernels-cuda is 1\.2\.3/);
    expect(load).toThrow(`npm install ${name}@1.2.3`);
    expect(load).toThrow('cmake-js build');
  });

  it('takes the file of DEEPSPEED_TS_CUDA_NATIVE_PATH and no other', () => {
    const env = { DEEPSPEED_TS_CUDA_NATIVE_PATH: '/elsewhere/kernels_cuda.node' };
    const own = { version: '1.2.3' };
    expect(loadNative(host({ '/elsewhere/kernels_cuda.node': own, [local]: { version: '1.2.3' } }, env))).toBe(own);
    expect(() => loadNative(host({ [local]: { version: '1.2.3' } }, env))).toThrow(/point DEEPSPEED_TS_CUDA_NATIVE_PATH at/);
  });

  it("passes on the system's error for a binary that is there and does not load", () => {
    const broken = Object.assign(new Error("version `GLIBC_2.99' not found"), { code: 'ERR_DLOPEN_FAILED' });
    expect(() => loadNative(host({ [local]: broken, [name]: { version: '1.2.3' } }))).toThrow(broken);
  });

  it.each([
    ['DEEPSPEED_TS_CUDA_MEMORY_LIMIT', '4GB', /expected a number of bytes, got '4GB'/],
    ['DEEPSPEED_TS_CUDA_ALLOCATOR', 'plane', /expected 'plain', or nothing, got 'plane'/],
    ['DEEPSPEED_TS_CUDA_TUNE', 'off', /expected 0, 1 or print, got 'off'/],
    ['DEEPSPEED_TS_CUDA_GRAPHS', 'true', /expected 0 or 1, got 'true'/],
  ])('refuses %s=%s', (variable, value, message) => {
    expect(() => loadNative(host({ [local]: { version: '1.2.3' } }, { [variable]: value }))).toThrow(message);
  });

  it('names the platform package', () => {
    expect(platformPackage({ platform: 'linux', arch: 'x64' })).toBe(name);
  });
});
