import { type Batch, DeepSpeedError, type HostArray } from '@deepspeed-ts/core';
import { nextTokenLabels } from '../decoder/decoder.js';

/** Tokens of one row. Labels say what should follow each; without them that is the next token. */
export interface TokenSample {
  readonly inputIds: Int32Array | readonly number[];
  readonly labels?: Int32Array | readonly number[] | undefined;
  /** Where the row holds several documents: the position of each token in its own. */
  readonly positionIds?: Int32Array | readonly number[] | undefined;
}

export interface PadOptions {
  /** What fills a row up on its right. It is never looked at; default 0. */
  readonly padTokenId?: number | undefined;
  /** Rows become a multiple of this long; GPUs like 8 or 64. Default 1. */
  readonly padToMultipleOf?: number;
  /** Rows become this long, whatever they hold. Default: as long as the longest of the batch. */
  readonly length?: number;
}

/**
 * Makes a batch of rows of tokens: i32 [rows, longest], padded on the right. Padding has no label, and comes after all that is said, so
 * causal attention never looks at it.
 */
export function padCollator({
  padTokenId = 0,
  padToMultipleOf = 1,
  length = 0,
}: PadOptions = {}): (samples: readonly TokenSample[]) => Batch {
  return (samples) => {
    for (const [row, sample] of samples.entries()) checkLengths(sample, row);
    const longest = samples.reduce((most, { inputIds }) => Math.max(most, inputIds.length), length);
    const tokens = Math.ceil(longest / padToMultipleOf) * padToMultipleOf;
    const shape = [samples.length, tokens];
    const rows = (value: number): HostArray & { data: Int32Array } => ({
      data: new Int32Array(samples.length * tokens).fill(value),
      shape,
    });
    const [inputIds, labels] = [rows(padTokenId), rows(-100)];
    const positionIds = samples.some((sample) => sample.positionIds) ? rows(0) : undefined;
    for (const [row, sample] of samples.entries()) {
      const at = row * tokens;
      const { length: own } = sample.inputIds;
      inputIds.data.set(sample.inputIds, at);
      labels.data.set(sample.labels ?? nextTokenLabels(sample.inputIds, own, sample.positionIds), at);
      if (!positionIds) continue;
      for (let i = 0; i < tokens; i++) positionIds.data[at + i] = i < own ? (sample.positionIds?.[i] ?? i) : i - own;
    }
    return positionIds ? { inputIds, labels, positionIds } : { inputIds, labels };
  };
}

function checkLengths({ inputIds, labels = inputIds, positionIds = inputIds }: TokenSample, row: number): void {
  if (!inputIds || typeof inputIds.length !== 'number')
    throw new DeepSpeedError(
      'ERR_DATA',
      `row ${row} of a batch has no inputIds; expected samples { inputIds, labels }, or a dataCollator of your own`,
    );
  for (const [name, field] of Object.entries({ labels, positionIds })) {
    if (field.length !== inputIds.length)
      throw new DeepSpeedError(
        'ERR_DATA',
        `row ${row} of a batch has ${inputIds.length} inputIds and ${field.length} ${name}; expected as many`,
      );
  }
}
