/**
 * A scope frees at its end what was made in it and neither returned nor kept elsewhere (by the autograd tape, say). Scopes are
 * synchronous: memory is freed in program order, which is also stream order.
 */
let current: Set<Scoped> | null = null;

/** What a scope can own: tensors. A base class, so that this file need not know them. */
export abstract class Scoped {
  abstract dispose(): void;
}

/** Called by every new tensor. */
export function track(tensor: Scoped): void {
  current?.add(tensor);
}

/** The tensor is owned by somebody outside the scope from now on. */
export function untrack(tensor: Scoped): void {
  current?.delete(tensor);
}

/**
 * Runs `body` and disposes every tensor made in it that is not part of its result. Tensors in the result (also inside arrays
 * and plain objects) belong to the enclosing scope, or to the caller where there is none.
 */
export function scope<T>(body: () => T): T {
  const outer = current;
  const mine = new Set<Scoped>();
  current = mine;
  let result: T;
  try {
    result = body();
    if (result instanceof Promise) throw new TypeError('scope() takes a synchronous function: tensors made after an await would escape it');
    for (const tensor of tensorsIn(result)) {
      if (mine.delete(tensor)) outer?.add(tensor);
    }
  } finally {
    current = outer;
    for (const tensor of mine) tensor.dispose();
  }
  return result;
}

/** Runs `body` so that the tensors it makes belong to no scope: their maker disposes them. */
export function unscoped<T>(body: () => T): T {
  const outer = current;
  current = null;
  try {
    return body();
  } finally {
    current = outer;
  }
}

export function* tensorsIn(value: unknown): Generator<Scoped> {
  if (value instanceof Scoped) yield value;
  else if (Array.isArray(value)) for (const item of value) yield* tensorsIn(item);
  else if (value !== null && typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) yield* tensorsIn(item);
  }
}
