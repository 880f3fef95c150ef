import { type Call, describeCall, sameCall } from './call.js';

/** What the ranks called at one place of their sequence. */
interface Row {
  readonly calls: (Call | undefined)[];
  count: number;
  differs: boolean;
}

/** Rank 0's book of who has called what. Calls are numbered from 1. */
export class Agreement {
  readonly #size: number;
  #first = 1;
  #rows: Row[] = [];

  constructor(size: number) {
    this.#size = size;
  }

  /** The last call that all ranks have made, and made alike. */
  get agreed(): number {
    return this.#first - 1;
  }

  /** The last call that any rank has made. */
  get reached(): number {
    return this.#first + this.#rows.length - 1;
  }

  add(rank: number, sequence: number, call: Call): void {
    while (this.reached < sequence) this.#rows.push({ calls: [], count: 0, differs: false });
    const row = this.#rows[sequence - this.#first];
    if (!row) return;
    const other = row.calls.find((known) => known !== undefined);
    if (other && !sameCall(other, call)) row.differs = true;
    row.calls[rank] = call;
    row.count++;
    while (this.#rows.length > 0 && this.#rows[0]!.count === this.#size && !this.#rows[0]!.differs) {
      this.#rows.shift();
      this.#first++;
    }
  }

  /** The first call in which ranks differ, as a text; `complete`: every rank's call is in it. */
  mismatch(): { readonly message: string; readonly sequence: number; readonly complete: boolean } | null {
    const index = this.#rows.findIndex(({ differs }) => differs);
    if (index < 0) return null;
    const row = this.#rows[index]!;
    const calls: string[] = [];
    for (let rank = 0; rank < this.#size; rank++) {
      const call = row.calls[rank];
      calls.push(call ? `rank ${rank} ${describeCall(call, this.#first + index)}` : `rank ${rank} nothing yet`);
    }
    return {
      message: `ranks called different collectives: ${calls.join('; ')}`,
      sequence: this.#first + index,
      complete: row.count === this.#size,
    };
  }

  /** The ranks that have not made this call. */
  missing(sequence: number): number[] {
    if (sequence < this.#first) return [];
    const row = this.#rows[sequence - this.#first];
    return Array.from({ length: this.#size }, (_, rank) => rank).filter((rank) => row?.calls[rank] === undefined);
  }
}
