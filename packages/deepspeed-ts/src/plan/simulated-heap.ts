import type { HeapRule } from '@deepspeed-ts/core';

/** A piece of address space that nobody uses. */
interface Gap {
  start: number;
  bytes: number;
}

/**
 * A heap of an allocator as far as its sizes go: best fit, the lowest address among equals, neighbouring gaps merged. It tells what
 * a program's requests make such an allocator take from the system, fragments included, without taking it.
 */
export class SimulatedHeap {
  /** Bytes taken from the system. */
  reserved = 0;
  /** By address. */
  readonly #gaps: Gap[] = [];
  readonly #taken = new Map<number, number>();
  /** Where a piece that is taken from the system next begins. */
  #end = 0;

  constructor(readonly rule: HeapRule) {}

  /** Address of a block; `undefined` where it would have to grow beyond `room` bytes more. */
  take(bytes: number, room = Number.POSITIVE_INFINITY): number | undefined {
    const wanted = roundUp(Math.max(bytes, 1), this.rule.block);
    const index = this.#bestFit(wanted) ?? this.#grow(wanted, room);
    if (index === undefined) return undefined;
    const gap = this.#gaps[index]!;
    const { start } = gap;
    this.#taken.set(start, wanted);
    if (gap.bytes === wanted) this.#gaps.splice(index, 1);
    else {
      gap.start += wanted;
      gap.bytes -= wanted;
    }
    return start;
  }

  give(start: number): void {
    const bytes = this.#taken.get(start)!;
    this.#taken.delete(start);
    this.#insert({ start, bytes });
  }

  #bestFit(wanted: number): number | undefined {
    let best: number | undefined;
    for (const [i, { bytes }] of this.#gaps.entries())
      if (bytes >= wanted && (best === undefined || bytes < this.#gaps[best]!.bytes)) best = i;
    return best;
  }

  #grow(wanted: number, room: number): number | undefined {
    const { step, least, joins } = this.rule;
    const last = this.#gaps.at(-1);
    const joined = joins && last && last.start + last.bytes === this.#end ? last.bytes : 0;
    const grown = Math.max(least, roundUp(wanted - joined, step));
    if (grown > room) return undefined;
    // Where pieces do not join, a gap of one byte keeps them apart.
    if (!joins) this.#end++;
    const start = this.#end;
    this.#end += grown;
    this.reserved += grown;
    return this.#insert({ start, bytes: grown });
  }

  /** Puts a gap in its place, merged with its neighbours; gives its index. */
  #insert(gap: Gap): number {
    const gaps = this.#gaps;
    let [low, high] = [0, gaps.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (gaps[middle]!.start < gap.start) low = middle + 1;
      else high = middle;
    }
    gaps.splice(low, 0, gap);
    const after = gaps[low + 1];
    if (after && gap.start + gap.bytes === after.start) {
      gap.bytes += after.bytes;
      gaps.splice(low + 1, 1);
    }
    const before = gaps[low - 1];
    if (!before || before.start + before.bytes !== gap.start) return low;
    before.bytes += gap.bytes;
    gaps.splice(low, 1);
    return low - 1;
  }
}

function roundUp(n: number, to: number): number {
  return Math.ceil(n / to) * to;
}
