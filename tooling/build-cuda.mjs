// Builds the CUDA addon of packages/kernels-cuda where there is a CUDA compiler; elsewhere says so and succeeds, because everything
// but the GPU works without. Any arguments go to cmake-js, such as `--CDDS_CUDA_ARCHITECTURES=80-real;90a-real`.
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, join } from 'node:path';
import { root, run } from './run.mjs';

const cwd = `${root}/packages/kernels-cuda`;
const nvcc = findNvcc(process.env);
if (!nvcc) {
  console.log('kernels-cuda: no CUDA compiler (nvcc) on this machine, so its addon is not built; GPU tests are skipped.');
} else {
  try {
    // Compiling one kernel file takes up to 2 GB, so one for each core is enough.
    const env = { CMAKE_BUILD_PARALLEL_LEVEL: String(availableParallelism()), CUDACXX: nvcc, ...process.env };
    run(process.execPath, [`${cwd}/node_modules/cmake-js/bin/cmake-js`, 'build', '--log-level', 'warn', ...process.argv.slice(2)], {
      cwd,
      env,
    });
  } catch (error) {
    console.error(`kernels-cuda: the build with ${nvcc} failed. ${error.message}`);
    process.exitCode = 1;
  }
}

/** As CMake looks for it: what is named outright, the toolkit's folder, the path, the usual place. */
function findNvcc({ CUDACXX, CUDA_HOME, CUDA_PATH, PATH = '' }) {
  const folders = [
    ...[CUDA_HOME, CUDA_PATH].filter(Boolean).map((home) => join(home, 'bin')),
    ...PATH.split(delimiter),
    '/usr/local/cuda/bin',
  ];
  return [CUDACXX, ...folders.map((folder) => join(folder, 'nvcc'))].find((path) => path && existsSync(path));
}
