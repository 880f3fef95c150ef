import { launch } from '@deepspeed-ts/launcher';

if (process.env.RANK === undefined) {
  const script = process.argv[1];
  const { exitCode } = await launch({ script, ranks: 2, onLine: ({ text }) => console.log(text) });
  process.exitCode = exitCode;
} else {
  console.log(`rank ${process.env.RANK} of ${process.env.WORLD_SIZE}`);
}
