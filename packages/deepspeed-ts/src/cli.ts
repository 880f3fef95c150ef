#!/usr/bin/env node
import { createRequire } from 'node:module';
import { commands } from './cli/commands.js';
import { main } from './cli/main.js';

const { version } = createRequire(import.meta.url)('../package.json') as { version: string };
process.exit(await main(process.argv.slice(2), { version, table: commands }));
