type Node = Record<string, unknown>;

/** A config that is being completed, reached by dotted paths. The caller's object stays as it is. */
export class ConfigNode {
  readonly root: Node;

  constructor(raw: Readonly<Record<string, unknown>>) {
    this.root = copy(raw) as Node;
  }

  /** `undefined` where there is nothing. */
  get(path: string): unknown {
    return path.split('.').reduce<unknown>((node, key) => (isNode(node) ? node[key] : undefined), this.root);
  }

  has(path: string): boolean {
    return this.get(path) != null;
  }

  /** Makes the objects that lead there. */
  set(path: string, value: unknown): void {
    const keys = path.split('.');
    const last = keys.pop()!;
    let node = this.root;
    for (const key of keys) {
      if (!isNode(node[key])) node[key] = {};
      node = node[key] as Node;
    }
    node[last] = value;
  }
}

/** Of plain objects and lists; whatever else there is stays what it is, for the config's own checks to refuse. */
function copy(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copy);
  return isNode(value) ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, copy(inner)])) : value;
}

function isNode(value: unknown): value is Node {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
