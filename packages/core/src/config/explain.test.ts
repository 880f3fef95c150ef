import { expect, test } from 'vitest';
import { explainConfig } from './explain.js';
import { defineSection } from './section.js';

const section = defineSection({
  name: 'Test',
  summary: 'Keys of every kind.',
  properties: {
    size: { type: 'integer', minimum: 1, description: 'How many.' },
    bucket: { type: 'integer', default: 1, description: 'Accepted without effect: there are no buckets.' },
    betas: { type: 'array', items: [{ type: 'number' }, { type: 'number' }], default: [0, 0], description: 'Two numbers.' },
    method: {
      type: 'object',
      discriminator: { propertyName: 'type' },
      oneOf: [
        {
          type: 'object',
          properties: { type: { const: 'fast', description: 'Which.' }, speed: { type: 'number', description: 'How fast.' } },
        },
        { type: 'object', properties: { type: { const: 'slow', description: 'Which.' } } },
      ],
    },
  },
  unsupported: { tuner: { reason: 'there is none', planned: '0.9', keys: ['rounds'] } },
  check({ size }, report) {
    if (size === undefined) report('size', 'missing; give a size');
  },
});
const explain = (raw: object) =>
  explainConfig([section], raw, { locate: (path) => `file:${path.length}` }).map(({ path, effect, text }) => [path, effect, text]);

test('every key is told with its meaning, in the order in which it is written', () => {
  expect(explain({ bucket: 7, method: { type: 'fast', speed: 2 }, size: 3 })).toEqual([
    ['bucket', 'without effect', 'there are no buckets.'],
    ['method.type', 'honoured', 'Which.'],
    ['method.speed', 'honoured', 'How fast.'],
    ['size', 'honoured', 'How many.'],
  ]);
});

test('what is wrong is told beside what is right, and what is missing comes last', () => {
  expect(explain({ siez: 3, betas: [1, 'x'], bucket: 1 })).toEqual([
    ['siez', 'refused', 'unknown key; did you mean "size"?'],
    ['betas', 'refused', 'betas[1]: expected a number, got "x"'],
    ['bucket', 'without effect', 'there are no buckets.'],
  ]);
  expect(explain({ bucket: 1 }).at(-1)).toEqual(['size', 'refused', 'missing; give a size']);
});

test('a feature that is not here may be off with the keys that belong to it, and is refused when it is on', () => {
  expect(explain({ size: 1, tuner: { enabled: false, rounds: 3 } })[1]).toEqual([
    'tuner',
    'switched off',
    'not supported: there is none (planned for 0.9)',
  ]);
  expect(explain({ size: 1, tuner: { enabled: true } })[1]).toEqual([
    'tuner',
    'refused',
    'not supported: there is none (planned for 0.9). Remove it',
  ]);
  expect(explain({ size: 1, tuner: { enabled: false, ruonds: 3 } }).at(-1)).toEqual([
    'tuner.ruonds',
    'refused',
    'unknown key; did you mean "tuner.rounds"?',
  ]);
});

test('a place in the source comes with every written key', () => {
  expect(explainConfig([section], { size: 0 }, { locate: () => 'ds.json:1:3' })).toEqual([
    { path: 'size', value: 0, place: 'ds.json:1:3', effect: 'refused', text: 'expected an integer >= 1, got 0' },
  ]);
});
