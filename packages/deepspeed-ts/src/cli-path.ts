import { fileURLToPath } from 'node:url';

/** The program of the `deepspeed-ts` command, to be started again: beside this file in the sources, and in dist. */
export const CLI_PATH = fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './cli.ts' : './cli.js', import.meta.url));
