// Everything a change must pass, in one command. All parts run even when one fails; the failed ones are named at the end.
import { spawnSync } from 'node:child_process';
import { root } from './run.mjs';

const bin = (name) => `${root}/node_modules/.bin/${name}`;
const node = process.execPath;
const parts = {
  lint: [bin('biome'), ['ci', ...(process.stdout.isTTY ? [] : ['--colors=off']), '.']],
  typecheck: [bin('tsc'), ['--noEmit']],
  deps: [bin('depcruise'), ['packages', 'examples', 'bench', 'tooling', '--config', '.dependency-cruiser.cjs']],
  unused: [bin('knip'), []],
  packages: [node, ['tooling/package-lint.mjs']],
  test: [bin('vitest'), ['run']],
};

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !(name in parts));
if (unknown.length > 0) {
  console.error(`Unknown part ${unknown.join(', ')}; there are ${Object.keys(parts).join(', ')}.`);
  process.exit(2);
}

const failed = [];
for (const name of chosen.length > 0 ? chosen : Object.keys(parts)) {
  const [command, args] = parts[name];
  const start = performance.now();
  console.log(`\n== ${name}`);
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`== ${name}: ${status === 0 ? 'ok' : 'FAILED'} (${seconds} s)`);
  if (status !== 0) failed.push(name);
}
if (failed.length > 0) {
  console.error(`\nFailed: ${failed.join(', ')}. Run one alone with \`npm run check ${failed[0]}\`.`);
  process.exit(1);
}
