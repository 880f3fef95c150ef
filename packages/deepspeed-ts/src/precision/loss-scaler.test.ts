import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type DynamicLossScaleOptions, DynamicLossScaler, fixedLossScale } from './loss-scaler.js';

const options = (over: Partial<DynamicLossScaleOptions> = {}): DynamicLossScaleOptions => ({
  initialScalePower: 8,
  window: 2,
  hysteresis: 1,
  consecutiveHysteresis: false,
  minScale: 1,
  ...over,
});

/** The scale after each step. */
function trace(scaler: DynamicLossScaler, overflows: readonly boolean[]): number[] {
  return overflows.map((overflow) => {
    scaler.update(overflow);
    return scaler.scale;
  });
}

const clean = (n: number) => new Array<boolean>(n).fill(false);
const bad = (n: number) => new Array<boolean>(n).fill(true);

describe('the dynamic loss scale', () => {
  it('doubles after every window of clean steps', () => {
    const scaler = new DynamicLossScaler(options());
    expect(trace(scaler, clean(10)).map(Math.log2)).toEqual([8, 8, 9, 9, 10, 10, 11, 11, 12, 12]);
    expect(scaler.iteration).toBe(10);
  });

  it('halves with every overflow down to its minimum, and says when it can fall no further', () => {
    const scaler = new DynamicLossScaler(options({ initialScalePower: 4 }));
    expect(trace(scaler, bad(4))).toEqual([8, 4, 2, 1]);
    expect(scaler.update(true)).toBe(false);
    expect([scaler.scale, scaler.iteration]).toEqual([1, 5]);
    const higher = new DynamicLossScaler(options({ initialScalePower: 4, minScale: 2 }));
    expect(trace(higher, bad(5))).toEqual([8, 4, 2, 2, 2]);
    const odd = new DynamicLossScaler(options({ initialScalePower: 4, minScale: 3 }));
    expect(trace(odd, bad(4))).toEqual([8, 4, 3, 3]);
  });

  it('falls and rises as overflows come: two, a window and one step clean, one', () => {
    const scaler = new DynamicLossScaler(options());
    expect(trace(scaler, [...bad(2), ...clean(3), ...bad(1)])).toEqual([128, 64, 64, 64, 128, 64]);
    expect(scaler.iteration).toBe(6);
  });

  it('forgives as many overflows as hysteresis says, once per window', () => {
    const scaler = new DynamicLossScaler(options({ hysteresis: 3 }));
    expect(trace(scaler, [...bad(4), ...clean(2), ...bad(1), ...clean(3), ...bad(3)])).toEqual([
      ...[256, 256, 128, 64],
      ...[64, 64, 32],
      ...[32, 32, 64],
      ...[64, 64, 32],
    ]);
  });

  it('forgives after every clean step with consecutive_hysteresis', () => {
    const scaler = new DynamicLossScaler(options({ hysteresis: 2, consecutiveHysteresis: true, window: 100 }));
    expect(trace(scaler, [true, false, true, false, true, true])).toEqual([256, 256, 256, 256, 256, 128]);
  });

  it('follows the rules for any pattern of overflows', () => {
    const random = fc.record({
      initialScalePower: fc.integer({ min: 0, max: 20 }),
      window: fc.integer({ min: 1, max: 6 }),
      hysteresis: fc.integer({ min: 1, max: 4 }),
      consecutiveHysteresis: fc.boolean(),
      minScale: fc.constantFrom(0.25, 1),
    });
    fc.assert(
      fc.property(random, fc.array(fc.boolean(), { maxLength: 80 }), (settings, overflows) => {
        const scaler = new DynamicLossScaler(settings);
        const seen = overflows.map((overflow) => [scaler.update(overflow), scaler.scale]);
        expect(seen).toEqual(byHistory(settings, overflows));
      }),
    );
  });

  it('goes on from its state as if never interrupted', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 40 }), fc.nat(40), (overflows, cut) => {
        const settings = options({ hysteresis: 2, window: 3 });
        const straight = trace(new DynamicLossScaler(settings), overflows);
        const first = new DynamicLossScaler(settings);
        const head = trace(first, overflows.slice(0, cut));
        const second = new DynamicLossScaler(settings);
        second.loadStateDict(JSON.parse(JSON.stringify(first.stateDict())));
        expect([...head, ...trace(second, overflows.slice(cut))]).toEqual(straight);
      }),
    );
  });

  it('refuses a state that is none', () => {
    const state = { cur_scale: 0, cur_iter: 3, last_overflow_iter: -1, cur_hysteresis: 1 };
    expect(() => new DynamicLossScaler(options()).loadStateDict(state)).toThrow(/expected cur_scale > 0.*got {"cur_scale":0/);
  });
});

describe('a fixed loss scale', () => {
  it('stays whatever happens', () => {
    const scaler = fixedLossScale(128);
    expect([scaler.update(true), scaler.update(false), scaler.scale]).toEqual([true, true, 128]);
  });
});

/**
 * The rules without a running state: each step's scale from the history before it. A window closes where the number of clean steps since
 * the last overflow, the first of them not counted, is a multiple of `window`.
 */
function byHistory(settings: DynamicLossScaleOptions, overflows: readonly boolean[]): [boolean, number][] {
  const { initialScalePower, window, hysteresis, consecutiveHysteresis, minScale } = settings;
  const cleanRun = (i: number) => (overflows[i] ? 0 : i - overflows.lastIndexOf(true, i));
  const closes = (i: number) => cleanRun(i) > 1 && (cleanRun(i) - 1) % window === 0;
  /** Overflows at and before step i since hysteresis was last made whole. */
  const strikes = (i: number): number => {
    let count = 0;
    for (let k = i; k >= 0 && !(overflows[k] ? false : consecutiveHysteresis || closes(k)); k--) count += Number(overflows[k]);
    return count;
  };
  let scale = 2 ** initialScalePower;
  return overflows.map((overflow, i) => {
    if (closes(i)) scale *= 2;
    const falls = overflow && strikes(i) >= hysteresis;
    const possible = !(falls && scale === minScale);
    if (falls) scale = Math.max(scale / 2, minScale);
    return [possible, scale];
  });
}
