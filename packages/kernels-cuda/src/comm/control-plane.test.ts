import { communicatorContract } from '@deepspeed-ts/test-kit';

// Who is lost, closed, silent, or calls something else: all of it is the control plane's, so it shows without a GPU.
communicatorContract('control plane without NCCL', {
  open: new URL('./open-fake-rank.ts', import.meta.url),
  sizes: [],
  failureSize: 3,
  silenceVariable: 'DEEPSPEED_TS_COMM_TIMEOUT',
});
