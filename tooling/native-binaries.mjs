// Puts freshly built addons into the platform packages they are published in (git ignores them there).
import { copyFileSync, existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { isPlatformPackage, publishedPackages } from './published.mjs';
import { root, run } from './run.mjs';

/**
 * Copies the addons built on this machine into the platform packages that fit this machine; gives the names of the packages it
 * filled. Only the CUDA addon may be missing, on machines without a CUDA compiler.
 */
export function copyNativeBinaries() {
  const filled = [];
  for (const entry of publishedPackages().filter(isPlatformPackage).filter(fitsHere)) {
    const owner = entry.dir.split('/npm/')[0];
    const built = `${root}/${owner}/build/Release/${entry.manifest.main}`;
    if (!existsSync(built)) {
      if (!needsCuda(owner)) throw new Error(`${built} is missing: build it with \`npm run build\`.`);
      console.log(`${entry.name} is left out: its addon is not built (no CUDA compiler on this machine)`);
      continue;
    }
    const shipped = `${root}/${entry.dir}/${entry.manifest.main}`;
    copyFileSync(built, shipped);
    run('strip', ['--strip-unneeded', shipped]); // a third of the size; names of exported symbols stay
    filled.push(entry.name);
  }
  return filled;
}

function needsCuda(owner) {
  return 'build:cuda' in JSON.parse(readFileSync(`${root}/${owner}/package.json`, 'utf8')).scripts;
}

function fitsHere({ manifest }) {
  const libc = process.report.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl';
  return manifest.os.includes(process.platform) && manifest.cpu.includes(process.arch) && (manifest.libc?.includes(libc) ?? true);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(`filled ${copyNativeBinaries().join(', ')}`);
