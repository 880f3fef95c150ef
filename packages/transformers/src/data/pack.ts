/** Documents of each row. */
export type PackingPlan = readonly (readonly number[])[];

/**
 * Puts documents into rows of at most `capacity` tokens, by best fit, the longest first: each goes where it leaves least room. Within
 * 11/9 of the fewest rows (D. S. Johnson, 1973), in O(n log capacity), and the same for the same lengths.
 *
 * @param lengths - Of documents, none above `capacity`; those of length 0 are left out.
 */
export function packDocuments(lengths: ArrayLike<number>, capacity: number): PackingPlan {
  const order = Uint32Array.from({ length: lengths.length }, (_, i) => i).sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  const rows: number[][] = [];
  /** Rows by the room that they have left. */
  const open: number[][] = Array.from({ length: capacity + 1 }, () => []);
  const rooms = new SmallestAtLeast(capacity + 1);
  for (const document of order) {
    const length = lengths[document]!;
    if (length === 0) break;
    const room = rooms.find(length);
    const row = room === undefined ? rows.push([]) - 1 : open[room]!.pop()!;
    if (room !== undefined && open[room]!.length === 0) rooms.set(room, false);
    rows[row]!.push(document);
    const left = (room ?? capacity) - length;
    open[left]!.push(row);
    rooms.set(left, true);
  }
  return rows;
}

/** A set of integers below `size` that finds its smallest member at or above one: a binary tree of which each node says whether it is empty. */
class SmallestAtLeast {
  readonly #leaves: number;
  readonly #tree: Uint8Array;

  constructor(size: number) {
    this.#leaves = 2 ** Math.ceil(Math.log2(Math.max(2, size)));
    this.#tree = new Uint8Array(2 * this.#leaves);
  }

  set(value: number, present: boolean): void {
    let node = this.#leaves + value;
    this.#tree[node] = Number(present);
    for (node >>= 1; node >= 1; node >>= 1) this.#tree[node] = this.#tree[2 * node]! | this.#tree[2 * node + 1]!;
  }

  find(value: number): number | undefined {
    let node = this.#leaves + value;
    if (this.#tree[node]) return value;
    // Up, until a neighbour on the right has a member; then down to its smallest.
    while (node > 1 && (node % 2 === 1 || !this.#tree[node + 1])) node >>= 1;
    if (node <= 1) return undefined;
    node++;
    while (node < this.#leaves) node = this.#tree[2 * node] ? 2 * node : 2 * node + 1;
    return node - this.#leaves;
  }
}
