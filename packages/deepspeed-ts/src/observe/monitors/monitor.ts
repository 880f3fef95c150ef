/** A value at a place of the run: after how many samples. */
export interface ScalarEvent {
  /** As DeepSpeed names it: 'Train/Samples/train_loss'. */
  readonly name: string;
  readonly value: number;
  /** Samples of all ranks so far. */
  readonly samples: number;
}

/** Where values of a run are written. Nothing of it keeps a step waiting. */
export interface Monitor {
  /** What it calls itself in messages. */
  readonly name: string;
  write(events: readonly ScalarEvent[]): void;
  /** The run has ended. Resolves once all that was written is on disk. */
  close(): Promise<void>;
}
