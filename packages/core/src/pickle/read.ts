import type { ByteCursor } from './cursor.js';
import { PickleMachine, type PickleOptions } from './machine.js';
import { opcodes } from './opcodes.js';
import { pythonConstructors } from './python.js';
import type { PickleValue } from './values.js';

export type ReadPickleOptions = Omit<PickleOptions, 'constructors'> & Partial<Pick<PickleOptions, 'constructors'>>;

/**
 * Reads one pickle of protocol 0 to 5 (PEP 3154, PEP 574) from where the cursor is. Nothing of it is executed: classes and functions
 * are names, a few of which stand for data that this package knows (in `constructors`); all others become inert objects.
 *
 * @throws PickleError naming file, byte and opcode, where the pickle is damaged, or larger than its limits allow
 */
export function readPickle(cursor: ByteCursor, options: ReadPickleOptions): PickleValue {
  const constructors = options.constructors ?? pythonConstructors;
  const machine = new PickleMachine(cursor, { ...options, constructors });
  while (!machine.finished) {
    const code = machine.next();
    const entry = opcodes[code];
    if (!entry) throw machine.error(`there is no opcode 0x${code.toString(16).padStart(2, '0')}: not a pickle, or damaged`);
    machine.opcode = entry[0];
    entry[1](machine);
  }
  return machine.pop();
}
