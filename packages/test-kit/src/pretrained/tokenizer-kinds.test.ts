import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AutoTokenizer, type ChatMessage } from '@deepspeed-ts/transformers';
import { describe, expect, it } from 'vitest';
import { readJson } from '../golden.js';
import { temporaryFolder } from './directories.js';

// What Python's tokenizers and transformers make of these: golden/tokenizers/make.py.
const fixtures = fileURLToPath(new URL('../../golden/tokenizers', import.meta.url));

interface Case {
  readonly text: string;
  readonly ids: number[];
  readonly plain: number[];
  readonly decoded: string;
  readonly skipped: string;
}

interface Expected {
  readonly cases: Case[];
  /** Of ids. */
  readonly parts: readonly { readonly text: number[]; readonly decoded: string }[];
  readonly batch: { input_ids: number[][]; attention_mask: number[][] };
}

describe.each(['llama2', 'llama3', 'qwen', 'unigram'])("a tokenizer of %s's kind", async (kind) => {
  const { cases, batch, parts } = readJson<Expected>(join(fixtures, kind, 'expected.json'));
  const tokenizer = await AutoTokenizer.fromPretrained(join(fixtures, kind));

  it.each(cases)('encodes and decodes as in Python: $text', ({ text, ids, plain, decoded, skipped }) => {
    expect(tokenizer.encode(text)).toEqual(ids);
    expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(plain);
    expect(tokenizer.decode(ids)).toBe(decoded);
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(skipped);
  });

  it('decodes part of a character as in Python', () => {
    for (const { text, decoded } of parts) expect(tokenizer.decode(text), JSON.stringify(text)).toBe(decoded);
  });

  it('pads and cuts as in Python', () => {
    const rows = tokenizer.encodeBatch(['Hello, world!', 'a', 'First Citizen speaks again'], { truncation: true, maxLength: 9 });
    expect([...rows.inputIds.data]).toEqual(batch.input_ids.flat());
    expect([...rows.attentionMask.data]).toEqual(batch.attention_mask.flat());
  });
});

describe('chat templates', async () => {
  interface ChatCase {
    readonly template: string;
    readonly messages: ChatMessage[];
    readonly tools?: object[];
    readonly prompt: boolean;
    readonly text?: string;
    readonly error?: string;
  }
  const { templates, cases } = readJson<{ templates: Record<string, string>; cases: ChatCase[] }>(join(fixtures, 'chat.json'));
  const folder = temporaryFolder();
  let made = 0;
  const load = (config: object, others: Readonly<Record<string, string>> = {}) => {
    const directory = join(folder, String(made++));
    mkdirSync(join(directory, 'additional_chat_templates'), { recursive: true });
    const files = { 'tokenizer_config.json': JSON.stringify({ bos_token: '<|im_start|>', eos_token: '<|im_end|>', ...config }), ...others };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
    writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify(readJson(join(fixtures, 'qwen', 'tokenizer.json'))));
    return AutoTokenizer.fromPretrained(directory);
  };
  const list = Object.entries(templates).map(([name, template]) => ({ name, template }));
  const named = await load({ chat_template: list });

  it.each(cases.map((one, i) => ({ ...one, i })))(
    'render as in Python: $template, $i',
    ({ template, messages, tools, prompt, text, error }) => {
      const render = () =>
        named.applyChatTemplate(messages, {
          chatTemplate: template,
          ...(tools && { tools }),
          addGenerationPrompt: prompt,
          variables: { date_string: '26 Jul 2026' },
        });
      if (error === undefined) expect(render()).toBe(text);
      else expect(render).toThrow(/chat template refuses the messages/);
    },
  );

  it('are one, or several by name, in the config or in files of their own', async () => {
    const messages = [{ role: 'user', content: 'Hi' }];
    const hi = '<|im_start|>user\nHi<|im_end|>\n';
    const one = await load({ chat_template: templates.chatml });
    expect(one.applyChatTemplate(messages)).toBe(hi);
    const files = await load(
      { chat_template: 'old' },
      { 'chat_template.jinja': templates.chatml!, 'additional_chat_templates/short.jinja': '{{ messages | length }}' },
    );
    expect(files.applyChatTemplate(messages)).toBe(hi);
    expect(files.applyChatTemplate(messages, { chatTemplate: 'short' })).toBe('1');
    expect(() => files.applyChatTemplate(messages, { chatTemplate: 'long' })).toThrow(/no chat template 'long'; there are default, short/);
    const tools = await load({
      chat_template: [
        { name: 'default', template: 'plain' },
        { name: 'tool_use', template: 'with {{ tools | length }}' },
      ],
    });
    expect(tools.applyChatTemplate(messages)).toBe('plain');
    expect(tools.applyChatTemplate(messages, { tools: [{}] })).toBe('with 1');
  });

  it('are missed with a way out, and say what they refuse', async () => {
    const none = await load({});
    expect(() => none.applyChatTemplate([])).toThrow(/it has no chat template, as tokenizers of base models do not; .*chat_template.jinja/);
    expect(() => named.applyChatTemplate([{ role: 'assistant', content: '' }], { chatTemplate: 'instruct' })).toThrow(
      /chat template refuses the messages: roles must alternate user and assistant/,
    );
    const broken = await load({ chat_template: '{% for %}' });
    expect(() => broken.applyChatTemplate([])).toThrow(/chat template 'default' can't be read/);
  });

  it('know the date, in the words of C whatever the language of the machine', async () => {
    const dated = await load({ chat_template: "{{ strftime_now('%Y-%m-%d|%d %B %Y|%b %a %A|%H:%M:%S %p %I %j %%') }}" });
    const now = new Date();
    const [iso, long, names, clock] = dated.applyChatTemplate([]).split('|');
    const two = (n: number) => String(n).padStart(2, '0');
    expect(iso).toBe(`${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`);
    const english = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat('en-US', options).format(now);
    expect(long).toBe(`${two(now.getDate())} ${english({ month: 'long' })} ${now.getFullYear()}`);
    expect(names).toBe(`${english({ month: 'short' })} ${english({ weekday: 'short' })} ${english({ weekday: 'long' })}`);
    expect(clock).toMatch(/^\d\d:\d\d:\d\d [AP]M \d\d %j %$/);
  });
});
