import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DeepSpeedError } from '@deepspeed-ts/core';
import { type LoadAttempt, NativeLoadError } from './errors.js';
import type { NativeAddon } from './native.js';

/** What the loader needs to know of its surroundings; tests give their own. */
export interface LoaderHost {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly platform: string;
  readonly arch: string;
  /** Version of this package; the binary's must be the same. */
  readonly version: string;
  /** Where a build from source puts the addon. */
  readonly localBuild: string;
  readonly require: (id: string) => unknown;
}

const override = 'DEEPSPEED_TS_CUDA_NATIVE_PATH';

const onOff = { valid: /^[01]$/, expected: '0 or 1' };
/** Variables that the addon reads; it would take its defaults for a value that it can't use. */
const settings: Readonly<Record<string, { readonly valid: RegExp; readonly expected: string }>> = {
  DEEPSPEED_TS_CUDA_MEMORY_LIMIT: { valid: /^[1-9]\d*$/, expected: 'a number of bytes' },
  DEEPSPEED_TS_CUDA_ALLOCATOR: { valid: /^plain$/, expected: "'plain', or nothing" },
  DEEPSPEED_TS_CUDA_TUNE: { valid: /^(0|1|print)$/, expected: '0, 1 or print' },
  DEEPSPEED_TS_CUDA_TF32: onOff,
  DEEPSPEED_TS_CUDA_GRAPHS: onOff,
};

/**
 * Loads the addon: the file that DEEPSPEED_TS_CUDA_NATIVE_PATH names (and then nothing else), else a build from source beside this
 * package, else the platform's package. It loads on machines without a GPU or a driver too.
 *
 * @throws DeepSpeedError when a variable of the environment has a value that means nothing
 * @throws NativeLoadError that lists what was tried, when none is there or the versions differ
 * @throws the system's own error, when a binary is there and does not load
 */
export function loadNative(host: LoaderHost = thisHost()): NativeAddon {
  checkSettings(host.env);
  const attempts: LoadAttempt[] = [];
  for (const id of candidates(host)) {
    try {
      const addon = host.require(id) as NativeAddon;
      if (addon.version === host.version) return addon;
      attempts.push({ what: id, reason: `is version ${addon.version}, but @deepspeed-ts/kernels-cuda is ${host.version}` });
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== 'MODULE_NOT_FOUND') throw error;
      attempts.push({ what: id, reason: message.split('\n', 1)[0]! });
    }
  }
  throw new NativeLoadError(attempts, remedies(host));
}

/** The package that carries the binary for a platform, for example `@deepspeed-ts/kernels-cuda-linux-x64-gnu`. */
export function platformPackage({ platform, arch }: Pick<LoaderHost, 'platform' | 'arch'>): string {
  return `@deepspeed-ts/kernels-cuda-${platform}-${arch}${platform === 'linux' ? '-gnu' : ''}`;
}

function checkSettings(env: LoaderHost['env']): void {
  for (const [name, { valid, expected }] of Object.entries(settings)) {
    const value = env[name];
    if (value && !valid.test(value)) throw new DeepSpeedError('ERR_ENVIRONMENT', `[cuda] ${name}: expected ${expected}, got '${value}'`);
  }
}

function candidates(host: LoaderHost): string[] {
  const path = host.env[override];
  return path ? [resolve(path)] : [host.localBuild, platformPackage(host)];
}

function remedies(host: LoaderHost): string[] {
  if (host.env[override]) return [`point ${override} at a kernels_cuda.node of version ${host.version}, or unset it`];
  return [
    `install the binary: npm install ${platformPackage(host)}@${host.version} (Linux with glibc only)`,
    'or build it: npx cmake-js build, in the folder of @deepspeed-ts/kernels-cuda (needs CMake, a C++17 compiler and nvcc 12 or newer)',
    'or train on the CPU: @deepspeed-ts/kernels-cpu',
  ];
}

function thisHost(): LoaderHost {
  const require = createRequire(import.meta.url);
  const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string };
  return {
    env: process.env,
    platform: process.platform,
    arch: process.arch,
    version: manifest.version,
    localBuild: fileURLToPath(new URL('../build/Release/kernels_cuda.node', import.meta.url)),
    require,
  };
}
