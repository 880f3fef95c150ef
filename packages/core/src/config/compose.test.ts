import fc from 'fast-check';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { ConfigError } from '../errors.js';
import { composeConfig, defineSection } from './index.js';

const engine = defineSection({
  name: 'Engine',
  summary: 'A section of scalars, a list and alternatives.',
  properties: {
    steps: { type: 'integer', minimum: 1, default: 10 },
    clip: { type: ['number', 'null'], minimum: 0, default: null },
    loss: { enum: ['mean', 'sum'], ignoreCase: true, default: 'mean', type: 'string', refused: { max: 'it has no gradient worth having' } },
    betas: { type: 'array', items: [{ type: 'number' }, { type: 'number' }], default: [0.9, 0.999] },
    schedule: {
      type: 'object',
      discriminator: { propertyName: 'type' },
      ignoreCase: true,
      refused: { cliff: 'nobody wants to fall' },
      oneOf: [
        { properties: { type: { const: 'flat' } } },
        {
          properties: {
            type: { const: 'ramp' },
            params: {
              type: 'object',
              default: {},
              properties: { until: { type: 'integer', default: 5 }, from: { type: 'number', default: 0 } },
            },
          },
        },
      ],
    },
    label: { type: 'string' },
  },
  unsupported: { turbo: 'there is no turbo', 'schedule.pace': 'there is one pace' },
  check(config, report) {
    if (config.clip !== null && config.clip > config.steps) report('clip', 'must not exceed steps');
  },
});

const sharding = defineSection({
  name: 'Sharding',
  summary: 'A nested section.',
  properties: {
    sharding: {
      type: 'object',
      default: {},
      properties: {
        stage: { enum: [0, 1, 2, 3], default: 0 },
        contiguous: { const: true, default: true, hint: 'slices are always contiguous' },
      },
    },
  },
  unsupported: { 'sharding.offload': 'nothing is offloaded yet' },
});

const sections = [engine, sharding] as const;

function problemsOf(raw: unknown, options = {}): readonly string[] {
  try {
    composeConfig(sections, raw, options);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

describe('composeConfig', () => {
  it('fills in every default, at every depth', () => {
    const config = composeConfig(sections, { schedule: { type: 'ramp', params: { from: 1 } } });
    expect(config).toEqual({
      steps: 10,
      clip: null,
      loss: 'mean',
      betas: [0.9, 0.999],
      schedule: { type: 'ramp', params: { until: 5, from: 1 } },
      sharding: { stage: 0, contiguous: true },
    });
    expect(composeConfig(sections, { schedule: { type: 'ramp' } }).schedule).toEqual({ type: 'ramp', params: { until: 5, from: 0 } });
  });

  it('derives its type from the schemas', () => {
    const config = composeConfig(sections, {});
    expectTypeOf(config.steps).toEqualTypeOf<number>();
    expectTypeOf(config.clip).toEqualTypeOf<number | null>();
    expectTypeOf(config.loss).toEqualTypeOf<'mean' | 'sum'>();
    expectTypeOf(config.betas).toEqualTypeOf<readonly [number, number]>();
    expectTypeOf(config.label).toEqualTypeOf<string | undefined>();
    expectTypeOf(config.sharding.stage).toEqualTypeOf<0 | 1 | 2 | 3>();
    expectTypeOf(config.schedule?.type).toEqualTypeOf<'flat' | 'ramp' | undefined>();
  });

  it('leaves the given object alone and freezes what it returns', () => {
    const raw = { loss: 'SUM', label: undefined };
    const config = composeConfig(sections, raw);
    expect(raw).toEqual({ loss: 'SUM', label: undefined });
    expect(config.loss).toBe('sum');
    expect(() => Object.assign(config.sharding, { stage: 3 })).toThrow(TypeError);
  });

  it('lists all problems at once, each with its path, what was expected and what came', () => {
    const raw = {
      steps: 0,
      clip: 'much',
      loss: 'avg',
      betas: [0.9],
      schedule: { type: 'rmap' },
      label: 7,
      sharding: { stage: 4, contiguous: false, stge: 1 },
      bananas: 1,
    };
    expect(problemsOf(raw)).toEqual([
      'steps: expected an integer >= 1, got 0',
      'clip: expected a number >= 0 or null, got "much"',
      'loss: expected "mean" or "sum", got "avg"',
      'betas: expected a list of 2, each a number, got [0.9]',
      'schedule.type: expected "flat" or "ramp", got "rmap"; did you mean "ramp"?',
      'label: expected a string, got 7',
      'sharding.stage: expected 0, 1, 2 or 3, got 4',
      'sharding.contiguous: expected true (slices are always contiguous), got false',
      'sharding.stge: unknown key; did you mean "sharding.stage"?',
      'bananas: unknown key; the keys of a config are $schema, steps, clip, loss, betas, schedule, label, sharding',
    ]);
  });

  it('says where a key belongs that stands at the wrong depth', () => {
    expect(problemsOf({ stage: 2 })).toEqual(['stage: unknown key here; it belongs at "sharding.stage"']);
    expect(problemsOf({ until: 2 })).toEqual(['until: unknown key here; it belongs at "schedule.params.until"']);
  });

  it('refuses unknown keys inside alternatives and says what a missing tag may be', () => {
    expect(problemsOf({ schedule: { type: 'ramp', params: { untill: 3 } } })).toEqual([
      'schedule.params.untill: unknown key; did you mean "schedule.params.until"?',
    ]);
    expect(composeConfig(sections, { schedule: { type: 'RAMP' } }).schedule?.type).toBe('ramp');
    expect(problemsOf({ schedule: { type: 'Cliff' } })).toEqual([
      'schedule.type: "Cliff" is not supported: nobody wants to fall. Expected "flat" or "ramp"',
    ]);
    expect(problemsOf({ schedule: { type: 'ramp', pace: 1 } })).toEqual(['schedule.pace: not supported: there is one pace. Remove it']);
    expect(problemsOf({ schedule: {} })).toEqual(['schedule.type: missing; expected "flat" or "ramp"']);
  });

  it('refuses what is not supported by name, but lets it say that it is off', () => {
    expect(problemsOf({ turbo: true, sharding: { offload: { device: 'cpu' } } })).toEqual([
      'turbo: not supported: there is no turbo. Remove it',
      'sharding.offload: not supported: nothing is offloaded yet. Remove it',
    ]);
    const config = composeConfig(sections, { turbo: { enabled: false }, sharding: { offload: { device: 'none' } } });
    expect(config).not.toHaveProperty('turbo');
    expect(config.sharding).not.toHaveProperty('offload');
    expect(problemsOf({ loss: 'Max' })).toEqual([
      'loss: "Max" is not supported: it has no gradient worth having. Expected "mean" or "sum"',
    ]);
  });

  it('refuses "auto" unless the caller resolves it', () => {
    expect(problemsOf({ steps: 'auto', sharding: { stage: 'auto' }, schedule: { type: 'auto' } })).toEqual([
      expect.stringMatching(/^steps: "auto" stands for a value/),
      expect.stringMatching(/^sharding\.stage: "auto"/),
      expect.stringMatching(/^schedule\.type: "auto"/),
    ]);
    const config = composeConfig(sections, { steps: 'auto' }, { resolveAuto: (path) => (path === 'steps' ? 42 : undefined) });
    expect(config.steps).toBe(42);
  });

  it('runs cross-field checks of sections whose own fields are valid, whatever else is wrong', () => {
    expect(problemsOf({ clip: 11, sharding: { stage: 9 } })).toEqual([
      'clip: must not exceed steps',
      'sharding.stage: expected 0, 1, 2 or 3, got 9',
    ]);
    expect(problemsOf({ clip: 11, steps: 'x' })).toEqual(['steps: expected an integer >= 1, got "x"']);
  });

  it('refuses what JSON cannot hold', () => {
    expect(problemsOf({ label: () => 1 })).toEqual(['label: expected a JSON value, got a function']);
    expect(problemsOf({ clip: Number.NaN })).toEqual(['clip: expected a number >= 0 or null, got NaN']);
    expect(problemsOf([])).toEqual(['a config must be an object, got []']);
    expect(problemsOf(JSON.parse('{"__proto__": 1}'))).toEqual([expect.stringContaining('__proto__: unknown key')]);
  });

  it('takes "$schema" for editors and drops it', () => {
    expect(composeConfig(sections, { $schema: './x.json' })).not.toHaveProperty('$schema');
  });

  it('puts the place in the source before a problem when it is known', () => {
    expect(problemsOf({ sharding: { stage: 4 } }, { locate: (path: readonly string[]) => `c.json:${path.length}:1` })).toEqual([
      'c.json:2:1: sharding.stage: expected 0, 1, 2 or 3, got 4',
    ]);
  });

  it('names the right key for any key that is one edit away', () => {
    const keys = ['steps', 'clip', 'loss', 'betas', 'schedule', 'label', 'turbo', 'sharding.stage', 'sharding.contiguous'];
    const letter = fc.constantFrom(...'abcdefghijklmnopqrstuvwxyz_0');
    fc.assert(
      fc.property(fc.constantFrom(...keys), fc.nat(), fc.nat(3), letter, (key, at, kind, char) => {
        const path = key.split('.');
        const right = path.pop()!;
        const i = at % right.length;
        const wrong =
          kind === 0
            ? right.slice(0, i) + right.slice(i + 1)
            : kind === 1
              ? right.slice(0, i) + char + right.slice(i)
              : kind === 2
                ? right.slice(0, i) + char + right.slice(i + 1)
                : right.slice(0, i) + (right[i + 1] ?? '') + right[i] + right.slice(i + 2);
        if (wrong === right) return;
        const raw = path.reduceRight<object>((inner, name) => ({ [name]: inner }), { [wrong]: 1 });
        expect(problemsOf(raw)).toEqual([`${[...path, wrong].join('.')}: unknown key; did you mean "${key}"?`]);
      }),
      { numRuns: 30 },
    );
  });
});
