// Puts freshly built addons into the platform packages they are published in (git ignores them there).
import { copyFileSync, existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { isPlatformPackage, publishedPackages } from './published.mjs';
import { root, run } from './run.mjs';

/** Copies the addon built on this machine into the platform package that fits this machine; gives the packages it filled. */
export function copyNativeBinaries() {
  const filled = [];
  for (const entry of publishedPackages().filter(isPlatformPackage).filter(fitsHere)) {
    const owner = entry.dir.split('/npm/')[0];
    const built = `${root}/${owner}/build/Release/${entry.manifest.main}`;
    if (!existsSync(built)) throw new Error(`${built} is missing: build it with \`npm run build\`.`);
    const shipped = `${root}/${entry.dir}/${entry.manifest.main}`;
    copyFileSync(built, shipped);
    run('strip', ['--strip-unneeded', shipped]); // a third of the size; names of exported symbols stay
    filled.push(entry.name);
  }
  return filled;
}

function fitsHere({ manifest }) {
  const libc = process.report.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl';
  return manifest.os.includes(process.platform) && manifest.cpu.includes(process.arch) && (manifest.libc?.includes(libc) ?? true);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(`filled ${copyNativeBinaries().join(', ')}`);
