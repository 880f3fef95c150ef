/** Frames of a call site that are shown. */
const FRAMES = 16;
/** Calls that are remembered: more than a rank ever has under way. */
const CALLS = 256;

/**
 * Where this rank made its last collectives, for the error of ranks that disagree. Remembering takes a few microseconds; the text of a
 * stack is made only when somebody asks.
 */
export class CallSites {
  readonly #sites: { readonly call: number; readonly at: { stack?: string } }[] = [];

  /** `below`: the function whose caller's caller is of interest; frames down to it are left out. */
  // biome-ignore lint/complexity/noBannedTypes: as Error.captureStackTrace has it
  remember(call: number, below: Function): void {
    const limit = Error.stackTraceLimit;
    Error.stackTraceLimit = FRAMES;
    const at = {};
    Error.captureStackTrace(at, below);
    Error.stackTraceLimit = limit;
    this.#sites[call % CALLS] = { call, at };
  }

  /** The stack of a call, a frame a line; empty where it was too long ago. */
  describe(call: number): string {
    const site = this.#sites[call % CALLS];
    if (site?.call !== call) return '';
    return (site.at.stack ?? '').split('\n').slice(1).join('\n');
  }
}
