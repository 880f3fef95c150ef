import { describe, expect, it } from 'vitest';
import { NativeLoadError } from './errors.js';
import { type LoaderHost, loadNative, platformPackage } from './load.js';

const missing = (id: string) => Object.assign(new Error(`Cannot find module '${id}'\nRequire stack: ...`), { code: 'MODULE_NOT_FOUND' });

/** A machine on which only these modules exist. */
function host(modules: Record<string, unknown>, rest: Partial<LoaderHost> = {}): LoaderHost {
  return {
    env: {},
    platform: 'linux',
    arch: 'arm64',
    libc: 'musl',
    version: '1.2.3',
    localBuild: '/package/build/Release/kernels_cpu.node',
    require: (id) => {
      const found = modules[id];
      if (found === undefined) throw missing(id);
      if (found instanceof Error) throw found;
      return found;
    },
    ...rest,
  };
}

const name = '@deepspeed-ts/kernels-cpu-linux-arm64-musl';
const local = '/package/build/Release/kernels_cpu.node';

describe('loadNative', () => {
  it('prefers the build from source to the platform package', () => {
    const [built, packaged] = [{ version: '1.2.3' }, { version: '1.2.3' }];
    expect(loadNative(host({ [local]: built, [name]: packaged }))).toBe(built);
    expect(loadNative(host({ [name]: packaged }))).toBe(packaged);
  });

  it('says everything that it tried, and what helps', () => {
    const error = catching(() => loadNative(host({ [local]: { version: '1.0.0' } })));
    expect(error).toBeInstanceOf(NativeLoadError);
    const { message, attempts } = error as NativeLoadError;
    expect(attempts).toEqual([
      { what: local, reason: 'is version 1.0.0, but @deepspeed-ts/kernels-cpu is 1.2.3' },
      { what: name, reason: `Cannot find module '${name}'` },
    ]);
    expect(message).toContain(`npm install ${name}@1.2.3`);
    expect(message).toContain('cmake-js build');
    expect(message).toContain("openBackend('reference')");
  });

  it('takes the file of DEEPSPEED_TS_NATIVE_PATH and no other', () => {
    const env = { DEEPSPEED_TS_NATIVE_PATH: '/elsewhere/kernels_cpu.node' };
    const own = { version: '1.2.3' };
    expect(loadNative(host({ '/elsewhere/kernels_cpu.node': own, [local]: { version: '1.2.3' } }, { env }))).toBe(own);
    expect(() => loadNative(host({ [local]: { version: '1.2.3' } }, { env }))).toThrow(
      /DEEPSPEED_TS_NATIVE_PATH=\/elsewhere.*Cannot find module/,
    );
  });

  it("passes on the system's error for a binary that is there and does not load", () => {
    const broken = Object.assign(new Error("version `GLIBC_2.99' not found"), { code: 'ERR_DLOPEN_FAILED' });
    expect(() => loadNative(host({ [local]: broken, [name]: { version: '1.2.3' } }))).toThrow(broken);
  });

  it.each([
    ['DEEPSPEED_TS_CPU_ISA', 'avx1024', /expected baseline, avx2 or avx512 .*, got 'avx1024'/],
    ['DEEPSPEED_TS_THREADS', '0', /expected a number of threads, got '0'/],
    ['DEEPSPEED_TS_CPU_MEMORY_LIMIT', '4GB', /expected a number of bytes, got '4GB'/],
  ])('refuses %s=%s', (variable, value, message) => {
    expect(() => loadNative(host({ [local]: { version: '1.2.3' } }, { env: { [variable]: value } }))).toThrow(message);
  });

  it('names the C library on Linux only', () => {
    expect(platformPackage({ platform: 'linux', arch: 'x64', libc: 'gnu' })).toBe('@deepspeed-ts/kernels-cpu-linux-x64-gnu');
    expect(platformPackage({ platform: 'darwin', arch: 'arm64', libc: '' })).toBe('@deepspeed-ts/kernels-cpu-darwin-arm64');
  });

  it('finds the binary of this machine', () => {
    expect(loadNative().opId('fill')).toBeGreaterThanOrEqual(0);
  });
});

function catching(f: () => unknown): unknown {
  try {
    f();
  } catch (error) {
    return error;
  }
  throw new Error('expected an error');
}
