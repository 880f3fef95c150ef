/** What a thread that loads data is started with. */
export interface WorkerStart {
  /** URL of the module whose default export is the dataset, or a function that makes it. */
  readonly module: string;
  /** What that function gets. */
  readonly args: unknown;
}

/** A batch to be made of samples. */
export interface WorkerRequest {
  readonly id: number;
  readonly items: readonly number[];
}

export interface WorkerError {
  readonly message: string;
  readonly stack?: string | undefined;
  /** The sample that is to blame. */
  readonly index?: number | undefined;
}

/** First of all whether there is a dataset, then batches and what has hindered them. */
export type WorkerReply =
  | { readonly length: number }
  | { readonly failed: WorkerError }
  | { readonly id: number; readonly batch: unknown }
  | { readonly id: number; readonly error: WorkerError };
