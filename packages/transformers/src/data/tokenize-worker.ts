import { parentPort, workerData } from 'node:worker_threads';
import { AutoTokenizer } from '../tokenizer/auto-tokenizer.js';
import { openRecords } from './records.js';
import { encodeRange } from './tokenize.js';
import type { TokenizeReply, TokenizeRequest, TokenizeStart } from './tokenize-threads.js';

// A thread that reads records of a file and encodes them.

const { path, lines, directory, completionOnly } = workerData as TokenizeStart;
const opened = Promise.all([openRecords(path, lines), AutoTokenizer.fromPretrained(directory)]);
// Told to whoever asks for something.
opened.catch(() => {});

parentPort!.on('message', async ({ id, from, to }: TokenizeRequest) => {
  const say = (reply: TokenizeReply, transfer: readonly ArrayBuffer[] = []) => parentPort!.postMessage(reply, transfer);
  try {
    const [records, tokenizer] = await opened;
    const chunk = await encodeRange(records, from, to, tokenizer, { completionOnly });
    say(
      { id, chunk },
      Object.values(chunk).map(({ buffer }) => buffer as ArrayBuffer),
    );
  } catch (error) {
    say({ id, error: error instanceof Error ? error.message : String(error) });
  }
});
