import type { RankError, RankMessage, RankProgram } from './spawn-world.js';

const send = (message: RankMessage): Promise<void> =>
  new Promise((resolve, reject) => process.send!(message, (error: Error | null) => (error ? reject(error) : resolve())));

function asData(thrown: unknown): RankError {
  if (!(thrown instanceof Error)) return { name: 'thrown', message: String(thrown) };
  const { name, message, stack, code, rank, peer } = thrown as Error & { code?: string; rank?: number; peer?: number };
  console.error(stack);
  return JSON.parse(JSON.stringify({ name, message, code, rank, peer })) as RankError;
}

type Load = () => Promise<{ default: unknown }>;

async function main(load: Load, given: Load | undefined, args: unknown): Promise<void> {
  // From here on only the program's own work keeps the process alive, so what it leaves behind shows.
  process.channel?.unref();
  try {
    const program = (await load()).default as RankProgram;
    const rank = Number(process.env.RANK);
    const size = Number(process.env.WORLD_SIZE);
    const context = { rank, size, args, say: (word: string) => void send({ say: word }), given: async () => (await given?.())?.default };
    await send({ value: await program(context) });
  } catch (error) {
    await send({ error: asData(error) });
    process.exitCode = 1;
  }
}

/** One rank of spawnWorld(): gets its arguments from the test, runs the default export of a module, answers with its result. */
export function runRank(load: Load, given?: Load): void {
  process.once('disconnect', () => process.exit(1));
  process.once('message', ({ args }: { args: unknown }) => void main(load, given, args));
}
