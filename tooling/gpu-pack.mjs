// Packs what the GPU tests and benchmarks need into .gpu/ (which git ignores), to run them on another machine that has a GPU but
// neither Node nor network: Node itself, the sources, both addons, the modules that vitest and tsx need, and golden values. There
// `.gpu/run.sh test` unpacks into a temporary folder and runs; `.gpu/run.sh help` lists the rest.
//
// Usage: node tooling/gpu-pack.mjs       Node and the modules are packed anew only when they changed.
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { copyModules } from './gpu/modules.mjs';
import { capture, root, run } from './run.mjs';

/** Of the repository; everything in them that git knows or would take. */
const sources = ['packages', 'bench', 'vitest.config.ts', 'tsconfig.base.json', 'tsconfig.json', 'package.json'];
const addons = ['kernels-cpu/build/Release/kernels_cpu.node', 'kernels-cuda/build/Release/kernels_cuda.node'];
/** Values that the tests on GPUs read; they lie beside the repository, and tests without them are skipped. */
const runs = ['stage0-fp32', 'stage1-fp32', 'stage2-fp32', 'stage3-fp32', 'stage1-bf16', 'stage2-bf16', 'stage3-bf16'];
const golden = ['models/gpt2', 'models/llama', ...runs.map((name) => `deepspeed-checkpoints/${name}-world2`)];

const out = `${root}/.gpu`;
const scratch = mkdtempSync(join(tmpdir(), 'gpu-pack-'));
try {
  mkdirSync(out, { recursive: true });
  const parts = [packNode(), packModules(), packSources()];
  copyFileSync(`${root}/tooling/gpu/run.sh`, `${out}/run.sh`);
  const sizes = parts.map((name) => `${name} ${mebibytes(name)}`).join(', ');
  console.log(`${out}: ${sizes}. There: bash .gpu/run.sh test`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** The running Node without debug symbols. */
function packNode() {
  return cached('node', process.version + process.arch, (folder) => {
    mkdirSync(`${folder}/bin`);
    copyFileSync(process.execPath, `${folder}/bin/node`);
    run('strip', ['--strip-all', `${folder}/bin/node`]); // what addons bind to is in the dynamic table, which stays
  });
}

function packModules() {
  const key = readFileSync(`${root}/pnpm-lock.yaml`) + readFileSync(`${root}/tooling/gpu/modules.mjs`, 'utf8');
  return cached('modules', key, (folder) => copyModules(root, `${folder}/main`));
}

function packSources() {
  const folder = join(scratch, 'sources');
  const listed = capture('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', ...sources]).split('\0');
  const files = listed.filter((file) => file && !/\.(cu|cuh|cc|h|md)$/.test(file) && existsSync(`${root}/${file}`));
  for (const file of files) copy(`${root}/${file}`, `${folder}/main/${file}`);
  for (const addon of addons) {
    const built = `${root}/packages/${addon}`;
    if (!existsSync(built)) {
      console.log(`${addon} is not built (npm run build); packing without it`);
      continue;
    }
    copy(built, `${folder}/main/packages/${addon}`);
    run('strip', ['--strip-unneeded', `${folder}/main/packages/${addon}`]);
  }
  for (const name of golden) {
    const from = `${root}/../shared/golden/${name}`;
    if (existsSync(from)) cpSync(from, `${folder}/shared/golden/${name}`, { recursive: true, filter: (path) => !path.endsWith('.pt') });
    else console.log(`no golden values at ${from}; their tests will be skipped there`);
  }
  const dirty = capture('git', ['status', '--porcelain', '--', ...sources]).trim() ? ' with changes' : '';
  writeFileSync(`${folder}/main/commit`, `${capture('git', ['rev-parse', 'HEAD']).trim()}${dirty}\n`);
  return compress('sources', folder, '-2');
}

/** A part that seldom changes: made again only when `key` did. */
function cached(name, key, make) {
  const stamp = `${out}/${name}.key`;
  const wanted = createHash('sha256').update(key).digest('hex');
  if (existsSync(`${out}/${name}.tar.xz`) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return `${name}.tar.xz`;
  const folder = join(scratch, name);
  mkdirSync(folder);
  make(folder);
  const file = compress(name, folder, '--x86 --lzma2=preset=6');
  writeFileSync(stamp, wanted);
  return file;
}

function compress(name, folder, level) {
  const file = `${name}.tar.xz`;
  const made = join(scratch, file);
  const filter = `xz ${level} -T${availableParallelism()}`;
  run('tar', ['--sort=name', '--owner=0', '--group=0', '-I', filter, '-cf', made, '-C', folder, '.']);
  copyFileSync(made, `${out}/.${file}`);
  renameSync(`${out}/.${file}`, `${out}/${file}`); // never a half-written part
  return file;
}

function copy(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
}

function mebibytes(file) {
  return `${(statSync(`${out}/${file}`).size / 2 ** 20).toFixed(1)} MiB`;
}
