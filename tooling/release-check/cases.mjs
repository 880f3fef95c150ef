// What a stranger may install, the few lines they run (a file of apps/, copied beside their node_modules), what its output must
// say, and whether it must fail. `command` runs the file when node alone won't do; `remove` deletes packages after the install, as if npm had found none for the platform.
const native = '@deepspeed-ts/kernels-cpu-linux-x64-gnu';

export const cases = [
  { title: 'core alone', install: ['@deepspeed-ts/core'], script: 'core.mjs', expect: ['gradient'] },
  { title: 'the CPU backend alone', install: ['@deepspeed-ts/kernels-cpu'], script: 'kernels-cpu.mjs', expect: ['instruction set'] },
  { title: 'the CUDA backend alone', install: ['@deepspeed-ts/kernels-cuda'], script: 'kernels-cuda.mjs', expect: ['GPUs: '] },
  { title: 'zero alone', install: ['@deepspeed-ts/zero'], script: 'zero.mjs', expect: ['stage'] },
  {
    title: 'transformers alone',
    install: ['@deepspeed-ts/transformers'],
    script: 'transformers.mjs',
    expect: ['0 missing', 'ERR_HUB_OFFLINE'],
  },
  { title: 'the launcher alone', install: ['@deepspeed-ts/launcher'], script: 'launcher.mjs', expect: ['rank 0 of 2', 'rank 1 of 2'] },
  {
    title: 'the meta package',
    install: ['deepspeed-ts'],
    script: 'deepspeed-ts.mjs',
    expect: ['1 ranks: loss fell', '1 ranks: resumed at step 20'],
  },
  {
    title: "the meta package's command",
    install: ['deepspeed-ts'],
    command: ['npx', 'deepspeed', '--num_accelerators', '2'],
    script: 'deepspeed-ts.mjs',
    expect: ['2 ranks: loss fell', '2 ranks: resumed at step 20'],
  },
  {
    title: 'the Trainer, with data from threads',
    install: ['deepspeed-ts'],
    script: 'trainer.mjs',
    expect: ["the Trainer's loss fell"],
  },
  {
    title: 'a platform without a binary',
    install: ['@deepspeed-ts/kernels-cpu'],
    remove: [native],
    script: 'kernels-cpu.mjs',
    expect: [native, 'npm install', 'cmake-js'],
    fails: true,
  },
];
