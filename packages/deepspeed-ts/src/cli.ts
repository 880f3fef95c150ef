#!/usr/bin/env node
import { createRequire } from 'node:module';
import { main } from './cli/main.js';

const { version } = createRequire(import.meta.url)('../package.json') as { version: string };
process.exit(await main(process.argv.slice(2), { version }));
