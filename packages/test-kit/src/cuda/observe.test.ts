import { describe } from 'vitest';
import { describeObservedRun } from '../observe/observed-run.js';
import { gpus } from './devices.js';

describe.skipIf(gpus(2) < 2)('two GPUs of a run that everybody looks at', () => describeObservedRun('cuda'));
