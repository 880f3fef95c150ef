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
  /** Empty where the platform has one C library only. */
  readonly libc: '' | 'gnu' | 'musl';
  /** Version of this package; the binary's must be the same. */
  readonly version: string;
  /** Where a build from source puts the addon. */
  readonly localBuild: string;
  readonly require: (id: string) => unknown;
}

interface Candidate {
  readonly what: string;
  readonly id: string;
}

const override = 'DEEPSPEED_TS_NATIVE_PATH';

/** Variables that the addon reads when it loads; it would take its defaults for a value that it can't use. */
const settings = {
  DEEPSPEED_TS_CPU_ISA: { valid: /^(baseline|avx2|avx512)$/, expected: 'baseline, avx2 or avx512 (the best at or below it is used)' },
  DEEPSPEED_TS_THREADS: { valid: /^[1-9]\d*$/, expected: 'a number of threads' },
  DEEPSPEED_TS_CPU_MEMORY_LIMIT: { valid: /^[1-9]\d*$/, expected: 'a number of bytes' },
};

/**
 * Loads the addon: the file that DEEPSPEED_TS_NATIVE_PATH names (and then nothing else), else a build from source beside this
 * package, else the platform's package.
 *
 * @throws DeepSpeedError when a variable of the environment has a value that means nothing
 * @throws NativeLoadError that lists what was tried, when none is there or the versions differ
 * @throws the system's own error, when a binary is there and does not load
 */
export function loadNative(host: LoaderHost = thisHost()): NativeAddon {
  checkSettings(host.env);
  const attempts: LoadAttempt[] = [];
  for (const { what, id } of candidates(host)) {
    try {
      const addon = host.require(id) as NativeAddon;
      if (addon.version === host.version) return addon;
      attempts.push({ what, reason: `is version ${addon.version}, but @deepspeed-ts/kernels-cpu is ${host.version}` });
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== 'MODULE_NOT_FOUND') throw error;
      attempts.push({ what, reason: message.split('\n', 1)[0]! });
    }
  }
  throw new NativeLoadError(attempts, remedies(host));
}

/** The package that carries the binary for a platform, for example `@deepspeed-ts/kernels-cpu-linux-x64-gnu`. */
export function platformPackage({ platform, arch, libc }: Pick<LoaderHost, 'platform' | 'arch' | 'libc'>): string {
  return ['@deepspeed-ts/kernels-cpu', platform, arch, libc].filter(Boolean).join('-');
}

function checkSettings(env: LoaderHost['env']): void {
  for (const [name, { valid, expected }] of Object.entries(settings)) {
    const value = env[name];
    if (value && !valid.test(value)) throw new DeepSpeedError('ERR_ENVIRONMENT', `[cpu] ${name}: expected ${expected}, got '${value}'`);
  }
}

function candidates(host: LoaderHost): Candidate[] {
  const path = host.env[override];
  if (path) return [{ what: `${override}=${path}`, id: resolve(path) }];
  const packageName = platformPackage(host);
  return [
    { what: host.localBuild, id: host.localBuild },
    { what: packageName, id: packageName },
  ];
}

function remedies(host: LoaderHost): string[] {
  if (host.env[override]) return [`point ${override} at a kernels_cpu.node of version ${host.version}, or unset it`];
  return [
    `install the binary: npm install ${platformPackage(host)}@${host.version} (package managers leave it out with --no-optional, or when node_modules came from another machine)`,
    'or build it: npx cmake-js build, in the folder of @deepspeed-ts/kernels-cpu (needs CMake and a C++17 compiler)',
    "or do without: openBackend('reference') runs everything in plain TypeScript, slowly",
  ];
}

function thisHost(): LoaderHost {
  const require = createRequire(import.meta.url);
  const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string };
  return {
    env: process.env,
    platform: process.platform,
    arch: process.arch,
    libc: detectLibc(),
    version: manifest.version,
    localBuild: fileURLToPath(new URL('../build/Release/kernels_cpu.node', import.meta.url)),
    require,
  };
}

/** Node's own report names glibc's version where there is one. Without `excludeNetwork` it would resolve every open socket's name. */
function detectLibc(): LoaderHost['libc'] {
  if (process.platform !== 'linux') return '';
  const report = process.report as typeof process.report & { excludeNetwork: boolean };
  const before = report.excludeNetwork;
  report.excludeNetwork = true;
  const { header } = report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  report.excludeNetwork = before;
  return header.glibcVersionRuntime ? 'gnu' : 'musl';
}
