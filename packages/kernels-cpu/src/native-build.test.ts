import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const build = fileURLToPath(new URL('../build/', import.meta.url));

function objects(level: string): string[] {
  const folder = join(build, 'CMakeFiles', `ops_${level}.dir/native/ops`);
  return readdirSync(folder)
    .filter((file) => file.endsWith('.o'))
    .map((file) => join(folder, file));
}

const levels = process.arch === 'x64' ? (['baseline', 'avx2', 'avx512'] as const) : (['baseline'] as const);

describe('the native build', () => {
  it('passes its own tests of pool, stream, allocator and scratch', () => {
    execFileSync(join(build, 'native_test'), { stdio: 'pipe' });
  });

  // The linker keeps one copy of a weak symbol. Were it the AVX-512 one of a function that all levels share, older CPUs would crash.
  it.each(levels)('gives %s objects no global or weak code outside their own namespace', (level) => {
    const lines = execFileSync('nm', ['--defined-only', ...objects(level)], { encoding: 'utf8' }).split('\n');
    const shared = lines.filter((line) => / [TWVu] /.test(line) && !line.includes(`isa_${level}`));
    expect(shared).toEqual([]);
  });

  // Registration runs on every CPU, also on those that can't run the kernels.
  it.each(levels.slice(1))('registers %s kernels without vector instructions', (level) => {
    const code = objects(level).map((file) => execFileSync('objdump', ['-d', '--section=.text.startup', file], { encoding: 'utf8' }));
    expect(code.join('')).not.toMatch(/%[xyz]mm/);
  });
});
