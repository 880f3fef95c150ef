import { type ConfigOf, defineSection, type ReportProblem } from '@deepspeed-ts/core';

const size = { type: ['integer', 'null'], minimum: 1, default: null } as const;

/** Two of the three sizes, or one of the first two, give the others. */
export const batchSection = defineSection({
  name: 'Batch size',
  summary:
    'train_batch_size = train_micro_batch_size_per_gpu * gradient_accumulation_steps * ranks. Give any two, or one of the first two; the others follow, with gradient_accumulation_steps 1 when nothing says otherwise.',
  properties: {
    train_batch_size: { ...size, description: 'Samples of one optimizer step, over all ranks.' },
    train_micro_batch_size_per_gpu: { ...size, description: 'Samples of one forward and backward pass, per rank.' },
    gradient_accumulation_steps: { ...size, description: 'Forward and backward passes of one optimizer step.' },
    dataloader_drop_last: {
      type: 'boolean',
      default: false,
      description: 'Leave out the last samples of an epoch that do not fill a micro-batch on every rank.',
    },
    managed_gradient_accumulation: {
      type: 'boolean',
      default: true,
      description:
        'Optimizer steps are taken at every gradient_accumulation_steps-th call of step(); false: at every call. The loss is divided by gradient_accumulation_steps all the same.',
    },
  },
  check(config, report, { worldSize }) {
    solveBatch(config, worldSize, report);
  },
});

type BatchConfig = ConfigOf<[typeof batchSection]>;

/** The three sizes, which satisfy their equation. */
export interface BatchTriad {
  readonly train_batch_size: number;
  readonly train_micro_batch_size_per_gpu: number;
  readonly gradient_accumulation_steps: number;
}

/**
 * Fills in the sizes that are not given, by DeepSpeed's rules. Returns `undefined` after reporting sizes that can't hold together.
 *
 * @param worldSize - Data-parallel ranks.
 */
export function solveBatch(given: Pick<BatchConfig, keyof BatchTriad>, worldSize: number, report: ReportProblem): BatchTriad | undefined {
  const batch = given.train_batch_size;
  const micro = given.train_micro_batch_size_per_gpu;
  if (batch === null && micro === null) {
    report('train_batch_size', 'missing; give train_batch_size or train_micro_batch_size_per_gpu, from which the other sizes follow');
    return undefined;
  }
  if (batch === null) {
    const steps = given.gradient_accumulation_steps ?? 1;
    return triad(micro! * steps * worldSize, micro!, steps);
  }
  // With train_batch_size alone there is no accumulation.
  const steps = given.gradient_accumulation_steps ?? (micro === null ? 1 : null);
  const factors: [string, number][] = [];
  if (micro !== null) factors.push(['train_micro_batch_size_per_gpu', micro]);
  if (given.gradient_accumulation_steps !== null) factors.push(['gradient_accumulation_steps', given.gradient_accumulation_steps]);
  factors.push(['ranks', worldSize]);
  const product = factors.reduce((all, [, value]) => all * value, 1);

  const complete = micro !== null && steps !== null;
  if (complete ? batch !== product : batch % product !== 0) {
    const numbers = factors.length > 1 ? [factors.map(([, value]) => value).join(' * '), product] : [product];
    const formula = [factors.map(([name]) => name).join(' * '), ...numbers].join(' = ');
    const below = batch - (batch % product);
    const wayOut = complete
      ? 'change one of them, or leave one out and it follows from the others'
      : below === 0
        ? `the smallest is ${product}`
        : `the nearest are ${below} and ${below + product}`;
    report('train_batch_size', `expected ${complete ? '' : 'a multiple of '}${formula}, got ${batch}; ${wayOut}`);
    return undefined;
  }
  return triad(batch, micro ?? batch / product, steps ?? batch / product);
}

function triad(batch: number, micro: number, steps: number): BatchTriad {
  return { train_batch_size: batch, train_micro_batch_size_per_gpu: micro, gradient_accumulation_steps: steps };
}
