import { library } from '../../tooling/tsup.js';

export default library(
  'src/index.ts',
  'src/cli.ts',
  'src/checkpoint/io-worker.ts',
  'src/data/data-worker.ts',
  'src/data/file-dataset-module.ts',
);
