import { ConfigError, type LearningRates, nearest } from '@deepspeed-ts/core';

/** What a schedule is made for. */
export interface ScheduleLength {
  readonly warmupSteps: number;
  readonly totalSteps: number;
}

type Options = Readonly<Record<string, number | string | undefined>>;
/** The share of the learning rate by step, from 0 on, for parameters whose highest rate is `baseLr`. */
type Factor = (step: number, baseLr: number) => number;

interface Kind {
  /** Its options, and their values where they are left out. */
  readonly options: Options;
  /** Options of which one must be given. */
  readonly needs?: readonly string[];
  /** From the end of the warm-up on. */
  after(length: ScheduleLength, options: Options): Factor;
  /** How it rises; on a line from 0 unless said otherwise. */
  warmup?(progress: number, options: Options): number;
}

const cosine = (progress: number, cycles: number) => 0.5 * (1 + Math.cos(Math.PI * 2 * cycles * progress));
const floored = (factor: number, floor: number) => Math.max(0, factor * (1 - floor) + floor);
const number = (value: number | string | undefined) => value as number;

/** How far a decay has come: 0 at the end of the warm-up, 1 at the last step. */
function progressOf(step: number, { warmupSteps, totalSteps }: ScheduleLength): number {
  return (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
}

/** Ways from 1 down to 0; a rise is one of them backwards. */
const FALLS: Readonly<Record<string, (progress: number, cycles: number) => number>> = {
  linear: (progress) => 1 - progress,
  cosine,
  '1-sqrt': (progress) => 1 - Math.sqrt(progress),
};

/** Hugging Face's schedules, by the names of its SchedulerType. */
export const SCHEDULES = {
  linear: {
    options: {},
    after:
      ({ warmupSteps, totalSteps }) =>
      (step) =>
        Math.max(0, (totalSteps - step) / Math.max(1, totalSteps - warmupSteps)),
  },
  cosine: {
    options: { numCycles: 0.5 },
    after: (length, options) => (step) => Math.max(0, cosine(progressOf(step, length), number(options.numCycles))),
  },
  cosine_with_restarts: {
    options: { numCycles: 1 },
    after: (length, options) => (step) => {
      const progress = progressOf(step, length);
      return progress >= 1 ? 0 : cosine((number(options.numCycles) * progress) % 1, 0.5);
    },
  },
  cosine_with_min_lr: {
    options: { numCycles: 0.5, minLr: undefined, minLrRate: undefined },
    needs: ['minLr', 'minLrRate'],
    after:
      (length, { numCycles, minLr, minLrRate }) =>
      (step, baseLr) =>
        floored(cosine(progressOf(step, length), number(numCycles)), number(minLrRate) ?? number(minLr) / baseLr),
  },
  polynomial: {
    options: { lrEnd: 1e-7, power: 1 },
    after:
      (length, { lrEnd, power }) =>
      (step, baseLr) => {
        const end = number(lrEnd) / baseLr;
        return step > length.totalSteps ? end : (1 - end) * (1 - progressOf(step, length)) ** number(power) + end;
      },
  },
  constant: { options: {}, after: () => () => 1, warmup: () => 1 },
  constant_with_warmup: { options: {}, after: () => () => 1 },
  inverse_sqrt: {
    options: { timescale: undefined },
    after: ({ warmupSteps }, options) => {
      const timescale = number(options.timescale) ?? (warmupSteps || 10_000);
      return (step) => 1 / Math.sqrt((step + timescale - warmupSteps) / timescale);
    },
  },
  warmup_stable_decay: {
    options: {
      numDecaySteps: undefined,
      numStableSteps: undefined,
      warmupType: 'linear',
      decayType: 'cosine',
      minLrRatio: 0,
      numCycles: 0.5,
    },
    needs: ['numDecaySteps'],
    warmup: (progress, { warmupType, minLrRatio }) => floored(FALLS[warmupType!]!(1 - progress, 0.5), number(minLrRatio)),
    after: ({ warmupSteps, totalSteps }, { numDecaySteps, numStableSteps, decayType, minLrRatio, numCycles }) => {
      const decay = number(numDecaySteps);
      const stable = number(numStableSteps) ?? totalSteps - warmupSteps - decay;
      return (step) => {
        const into = step - warmupSteps - stable;
        if (into < 0) return 1;
        if (into >= decay) return number(minLrRatio);
        return floored(FALLS[decayType!]!(into / Math.max(1, decay), number(numCycles)), number(minLrRatio));
      };
    },
  },
} as const satisfies Readonly<Record<string, Kind>>;

export type ScheduleName = keyof typeof SCHEDULES;

/**
 * A schedule of Hugging Face's `get_scheduler`: the first step of a warm-up runs with a learning rate of 0.
 *
 * @throws ConfigError for options that this schedule does not have, or wants and has not been given
 */
export function hfSchedule(name: ScheduleName, length: ScheduleLength, given: Readonly<Record<string, unknown>> = {}): LearningRates {
  const kind: Kind = SCHEDULES[name];
  const options = { ...kind.options, ...checkOptions(name, kind, given) };
  const after = kind.after(length, options);
  const warmup = kind.warmup ?? ((progress: number) => progress);
  return {
    lr(iteration, baseLr) {
      const step = iteration + 1;
      return baseLr * (step < length.warmupSteps ? warmup(step / Math.max(1, length.warmupSteps), options) : after(step, baseLr));
    },
  };
}

function checkOptions(name: string, { options, needs = [] }: Kind, given: Readonly<Record<string, unknown>>): Options {
  const known = Object.keys(options);
  const problems = Object.entries(given).flatMap(([key, value]) => {
    const at = `args.lrSchedulerKwargs.${key}`;
    if (!known.includes(key)) {
      const close = nearest(key, known);
      const there = known.length === 0 ? 'it has none' : `its options are ${known.join(', ')}`;
      return [`${at}: '${name}' has no such option; ${close.length > 0 ? `did you mean ${close.join(' or ')}?` : there}`];
    }
    if (key === 'warmupType' || key === 'decayType') {
      const kinds = Object.keys(FALLS);
      return kinds.includes(value as string) ? [] : [`${at}: expected ${kinds.join(', ')}, got ${JSON.stringify(value)}`];
    }
    return typeof value === 'number' && Number.isFinite(value) ? [] : [`${at}: expected a number, got ${JSON.stringify(value)}`];
  });
  if (needs.length > 0 && needs.filter((key) => given[key] !== undefined).length !== 1)
    problems.push(`args.lrSchedulerKwargs: '${name}' needs ${needs.length > 1 ? `one of ${needs.join(' and ')}` : needs[0]}`);
  if (problems.length > 0) throw new ConfigError(problems);
  return given as Options;
}
