/** A subcommand of `deepspeed-ts`; its module is loaded only when it is asked for. */
export interface Command {
  /** One line for the list of commands. */
  readonly summary: string;
  load(): Promise<CommandModule>;
}

export interface CommandModule {
  /** What `--help` prints. */
  readonly usage: string;
  /** Runs with the arguments after the command's name and gives the exit code. Errors that it throws are printed and end with 1. */
  run(args: readonly string[]): Promise<number>;
}

export const commands: Readonly<Record<string, Command>> = {
  config: { summary: 'What each key of a DeepSpeed config does here (config check FILE)', load: () => import('./config.js') },
  convert: { summary: 'Turns a DeepSpeed checkpoint into one of ours', load: () => import('./convert.js') },
  finetune: { summary: 'Trains a Hugging Face model on a file of yours', load: () => import('./finetune.js') },
  generate: { summary: 'Writes what a model says after a prompt', load: () => import('./generate.js') },
  plan: { summary: 'What a run takes of memory, and whether it fits', load: () => import('./plan.js') },
};
