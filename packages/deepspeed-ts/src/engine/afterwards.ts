/** Runs `body` and then `last`, once a promise that it returns has settled. */
export function afterwards<T>(body: () => T, last: () => void): T {
  let result: T;
  try {
    result = body();
  } catch (error) {
    last();
    throw error;
  }
  if (result instanceof Promise) return result.finally(last) as T;
  last();
  return result;
}
