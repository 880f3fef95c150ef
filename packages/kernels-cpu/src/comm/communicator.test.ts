import { communicatorContract } from '@deepspeed-ts/test-kit';

const common = { open: new URL('./open-rank.ts', import.meta.url), silenceVariable: 'DEEPSPEED_TS_COMM_TIMEOUT' };

communicatorContract('shared memory', { ...common, sizes: [2, 3, 4], failureSize: 3 });
communicatorContract('TCP', { ...common, sizes: [2, 4], failureSize: 3, env: () => ({ DEEPSPEED_TS_COMM: 'tcp' }) });
communicatorContract('two hosts', { ...common, sizes: [3, 4], env: (rank) => ({ DEEPSPEED_TS_HOST_ID: `host ${rank % 2}` }) });
