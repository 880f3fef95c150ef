import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { type Converted, type ConvertProgress, convertDeepSpeedCheckpoint } from '../deepspeed-checkpoint/index.js';
import { UsageError } from './main.js';

export const usage = `
Usage: deepspeed-ts convert <checkpoint> <output> [options]

Turns a checkpoint that DeepSpeed wrote into one that engine.loadCheckpoint(output) goes on from, at any stage and number
of ranks, and that Hugging Face libraries open. Nothing in the files is executed. <output> must not exist yet.

  <checkpoint>   the directory that has 'latest', or that of one tag
  --tag TAG      which checkpoint; default: what 'latest' names
  --model DIR    a Hugging Face directory to take config.json and the tokenizer from
  --no-verify    don't compare the checksums in the files first
  --json         print the result as JSON
  --quiet        no progress
`;

const WORTH_TELLING = 2e8;

export async function run(args: readonly string[]): Promise<number> {
  const { values, positionals } = parse(args);
  const [input, output, ...more] = positionals;
  if (input === undefined || output === undefined || more.length > 0)
    throw new UsageError(`expected a checkpoint and an output, got ${positionals.length} arguments\n${usage}`);
  const result = await convertDeepSpeedCheckpoint(input, output, {
    ...(values.tag !== undefined && { tag: values.tag }),
    ...(values.model !== undefined && { model: values.model }),
    verify: !values['no-verify'],
    ...(!values.quiet && { onProgress: progressLines() }),
  });
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : summary(result));
  return 0;
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        tag: { type: 'string' },
        model: { type: 'string' },
        'no-verify': { type: 'boolean' },
        json: { type: 'boolean' },
        quiet: { type: 'boolean' },
      },
    });
  } catch (error) {
    throw new UsageError(`${(error as Error).message}\n${usage}`);
  }
}

/** One line for each file, and one for each tenth of what takes longer to write. */
function progressLines(): (progress: ConvertProgress) => void {
  let tenth = 0;
  return ({ phase, path, done, total }) => {
    if (phase === 'read') return void process.stderr.write(`reading ${basename(path)} (${done + 1} of ${total})\n`);
    const now = Math.floor((10 * done) / total);
    if (now === tenth || (total < WORTH_TELLING && done < total)) return;
    tenth = now;
    process.stderr.write(`written ${10 * now}% of ${gigabytes(total)}\n`);
  };
}

function summary({ path, tag, stage, worldSize, globalSteps, parameters, elements, states, bytes, notes }: Converted): string {
  const lines = [
    `${path}: ${tag} of ZeRO stage ${stage} on ${worldSize} rank${worldSize === 1 ? '' : 's'}, after ${globalSteps} steps`,
    `${parameters} parameters with ${elements} elements; optimizer states: ${states.join(', ') || 'none'}; ${gigabytes(bytes)}`,
    ...notes.map((note) => `note: ${note}`),
  ];
  return `${lines.join('\n')}\n`;
}

function gigabytes(bytes: number): string {
  return bytes >= 1e8 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(2)} MB`;
}
