import type { RankError, RankMessage, RankProgram } from './spawn-world.js';

// One rank of spawnWorld(): gets its arguments from the test, runs the module's default export, answers with its result.

const send = (message: RankMessage): Promise<void> =>
  new Promise((resolve, reject) => process.send!(message, (error: Error | null) => (error ? reject(error) : resolve())));

function asData(thrown: unknown): RankError {
  if (!(thrown instanceof Error)) return { name: 'thrown', message: String(thrown) };
  const { name, message, stack, code, rank, peer } = thrown as Error & { code?: string; rank?: number; peer?: number };
  console.error(stack);
  return JSON.parse(JSON.stringify({ name, message, code, rank, peer })) as RankError;
}

async function main({ args }: { args: unknown }): Promise<void> {
  // From here on only the program's own work keeps the process alive, so what it leaves behind shows.
  process.channel?.unref();
  try {
    const module = (await import(process.argv[2]!)) as { default: RankProgram };
    const rank = Number(process.env.RANK);
    const size = Number(process.env.WORLD_SIZE);
    await send({ value: await module.default({ rank, size, args, say: (word) => void send({ say: word }) }) });
  } catch (error) {
    await send({ error: asData(error) });
    process.exitCode = 1;
  }
}

process.once('disconnect', () => process.exit(1));
process.once('message', (message) => void main(message as { args: unknown }));
