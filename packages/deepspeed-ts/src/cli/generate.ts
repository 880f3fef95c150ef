import { Device } from '@deepspeed-ts/core';
import { AutoModelForCausalLM, AutoTokenizer, generateText, PeftModel } from '@deepspeed-ts/transformers';
import { type DeviceName, openDevice } from '../device.js';
import { UsageError } from './main.js';
import { needed, numberOf, parseOptions } from './options.js';

export const usage = `
Usage: deepspeed-ts generate --model DIR --prompt TEXT [options]

Writes what a model says after a prompt to standard output, as it comes.

  --model DIR             a Hugging Face directory, or the id of a model on the Hub
  --adapter DIR           adapters in PEFT's format, as finetune --lora writes them
  --prompt TEXT           - reads standard input
  --chat                  the prompt is what a user says: through the model's chat template
  --system TEXT           with --chat: what comes before it
  --max-new-tokens N      default 128, or what the model's generation_config.json says
  --temperature X         draw tokens; below 1 likely ones become likelier
  --top-k N, --top-p X    draw among the N likeliest; among the likeliest that have probability X together
  --repetition-penalty X  above 1 the model repeats itself less
  --stop TEXT             end where the model writes this
  --seed N                of what is drawn; default 0
  --dtype f32|bf16|f16    of the weights; default: as they are stored
  --device cpu|cuda       default: the GPU where there is one
`;

const TEXT = { type: 'string' } as const;
const OPTIONS = {
  model: TEXT,
  adapter: TEXT,
  prompt: TEXT,
  chat: { type: 'boolean' },
  system: TEXT,
  'max-new-tokens': TEXT,
  temperature: TEXT,
  'top-k': TEXT,
  'top-p': TEXT,
  'repetition-penalty': TEXT,
  stop: TEXT,
  seed: TEXT,
  dtype: TEXT,
  device: TEXT,
} as const;

export async function run(args: readonly string[]): Promise<number> {
  const values = parseOptions('generate', args, OPTIONS);
  const [name, given] = [needed('generate', 'model', values.model), needed('generate', 'prompt', values.prompt)];
  const { dtype, device } = choicesOf(values);
  const count = (option: 'max-new-tokens' | 'top-k' | 'seed', least: number) => numberOf(option, values[option], { least, whole: true });
  const options = {
    maxNewTokens: count('max-new-tokens', 1),
    temperature: numberOf('temperature', values.temperature),
    topK: count('top-k', 0),
    topP: numberOf('top-p', values['top-p']),
    repetitionPenalty: numberOf('repetition-penalty', values['repetition-penalty']),
    seed: count('seed', 0),
    stop: values.stop,
  };
  if (values.system !== undefined && !values.chat) throw new UsageError('--system: needs --chat, where a system message has a place');
  const text = given === '-' ? await readInput() : given;
  const opened = await openDevice(device);
  const model = await AutoModelForCausalLM.fromPretrained(name, { device: new Device(opened.backend), ...(dtype && { dtype }) });
  try {
    const adapted = values.adapter === undefined ? model : await PeftModel.fromPretrained(model, values.adapter);
    const tokenizer = await AutoTokenizer.fromPretrained(model.directory ?? name);
    const system = values.system === undefined ? [] : [{ role: 'system', content: values.system }];
    const messages = [...system, { role: 'user', content: text }];
    // A template writes what begins a text itself.
    const prompt = values.chat
      ? tokenizer.encode(tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true }), { addSpecialTokens: false })
      : text;
    for await (const piece of generateText(adapted, prompt, { ...options, tokenizer })) process.stdout.write(piece);
    process.stdout.write('\n');
    return 0;
  } finally {
    model.dispose();
  }
}

function choicesOf({ dtype, device }: { dtype?: string | undefined; device?: string | undefined }) {
  if (dtype !== undefined && dtype !== 'f32' && dtype !== 'bf16' && dtype !== 'f16')
    throw new UsageError(`--dtype: expected f32, bf16 or f16, got '${dtype}'`);
  if (device !== undefined && device !== 'cpu' && device !== 'cuda')
    throw new UsageError(`--device: expected cpu or cuda, got '${device}'`);
  return { dtype: dtype as 'f32' | 'bf16' | 'f16' | undefined, device: device as DeviceName | undefined };
}

async function readInput(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8').replace(/\n$/, '');
}
