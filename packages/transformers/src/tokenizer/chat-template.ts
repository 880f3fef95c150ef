import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';
import { TokenizerError } from './errors.js';
import type { ChatMessage, ChatTemplateOptions } from './tokenizer.js';

const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'];
const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];

type Program = ReturnType<typeof parse>;

/** What Python's environment of templates has. */
const GLOBALS = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  range: (first: number, end?: unknown, step?: unknown) => {
    // Arguments that are left out may come as the library's own kind of nothing.
    const [from, to] = typeof end === 'number' ? [first, end] : [0, first];
    const by = typeof step === 'number' ? step : 1;
    return Array.from({ length: Math.max(0, Math.ceil((to - from) / by)) }, (_, i) => from + i * by);
  },
  raise_exception: (message: string) => {
    throw new Error(message);
  },
  strftime_now: (format: string) => formatTime(new Date(), format),
};

/** The chat templates of a tokenizer: Jinja, as Hugging Face's `apply_chat_template` runs it. */
export class ChatTemplates {
  readonly #sources: ReadonlyMap<string, string>;
  readonly #parsed = new Map<string, Program>();

  constructor(
    sources: ReadonlyMap<string, string>,
    /** Such as bos_token, for templates to use. */
    private readonly specialTokens: Readonly<Record<string, string>>,
  ) {
    this.#sources = sources;
  }

  render(messages: readonly ChatMessage[], options: ChatTemplateOptions): string {
    const { addGenerationPrompt = false, tools, documents, variables } = options;
    const environment = new Environment();
    const values = {
      ...GLOBALS,
      ...this.specialTokens,
      ...variables,
      messages,
      tools: tools ?? null,
      documents: documents ?? null,
      add_generation_prompt: addGenerationPrompt,
    };
    for (const [name, value] of Object.entries(values)) environment.set(name, value);
    const program = this.#program(options);
    try {
      return (new Interpreter(environment).run(program) as { value: string }).value;
    } catch (cause) {
      throw new TokenizerError('ERR_CHAT_TEMPLATE', `its chat template refuses the messages: ${(cause as Error).message}`, { cause });
    }
  }

  #program({ chatTemplate, tools }: ChatTemplateOptions): Program {
    const names = [...this.#sources.keys()];
    if (names.length === 0) {
      const way = 'write the conversation as the text that its model expects, or add a chat_template.jinja to its directory';
      throw new TokenizerError('ERR_CHAT_TEMPLATE', `it has no chat template, as tokenizers of base models do not; ${way}`);
    }
    const name = chatTemplate ?? (tools && this.#sources.has('tool_use') ? 'tool_use' : 'default');
    const source = this.#sources.get(name);
    if (source === undefined)
      throw new TokenizerError('ERR_CHAT_TEMPLATE', `it has no chat template '${name}'; there are ${names.join(', ')}`);
    let program = this.#parsed.get(name);
    if (!program) {
      try {
        program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
      } catch (cause) {
        throw new TokenizerError('ERR_CHAT_TEMPLATE', `its chat template '${name}' can't be read: ${(cause as Error).message}`, { cause });
      }
      this.#parsed.set(name, program);
    }
    return program;
  }
}

/** As C's strftime in its own locale, whatever the machine's. */
function formatTime(time: Date, format: string): string {
  const two = (n: number) => String(n).padStart(2, '0');
  const values: Readonly<Record<string, () => string>> = {
    Y: () => String(time.getFullYear()),
    y: () => two(time.getFullYear() % 100),
    m: () => two(time.getMonth() + 1),
    d: () => two(time.getDate()),
    e: () => String(time.getDate()).padStart(2),
    B: () => MONTHS[time.getMonth()]!,
    b: () => MONTHS[time.getMonth()]!.slice(0, 3),
    A: () => DAYS[time.getDay()]!,
    a: () => DAYS[time.getDay()]!.slice(0, 3),
    H: () => two(time.getHours()),
    I: () => two(time.getHours() % 12 || 12),
    M: () => two(time.getMinutes()),
    S: () => two(time.getSeconds()),
    p: () => (time.getHours() < 12 ? 'AM' : 'PM'),
    F: () => formatTime(time, '%Y-%m-%d'),
    T: () => formatTime(time, '%H:%M:%S'),
    '%': () => '%',
  };
  return format.replace(/%(.)/g, (whole, letter: string) => values[letter]?.() ?? whole);
}
