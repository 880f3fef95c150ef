// Packs every published package and checks the tarball as a stranger's tools would see it: publint (manifest and files), attw (types
// resolve for ESM users). A package without its binary or its types fails here, not at a user's.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { copyNativeBinaries } from './native-binaries.mjs';
import { isPlatformPackage, pack, publishedPackages } from './published.mjs';
import { root, run } from './run.mjs';

const scratch = mkdtempSync(join(tmpdir(), 'deepspeed-ts-lint-'));
const bin = (name) => `${root}/node_modules/.bin/${name}`;
try {
  const filled = copyNativeBinaries();
  for (const entry of publishedPackages()) {
    if (isPlatformPackage(entry) && !filled.includes(entry.name)) continue;
    const tarball = pack(entry, scratch);
    console.log(`- ${entry.name}`);
    run(bin('publint'), [tarball, '--strict']);
    if (!isPlatformPackage(entry)) run(bin('attw'), [tarball, '--profile', 'esm-only', '--quiet']);
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
