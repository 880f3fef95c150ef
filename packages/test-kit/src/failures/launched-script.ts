import { type FailingArgs, trainUntilFailure } from './failing-rank.js';

// As a user's script under the launcher: an error that nobody catches.
await trainUntilFailure({ ...(JSON.parse(process.argv[2]!) as FailingArgs), say: (word) => console.log(word) });
