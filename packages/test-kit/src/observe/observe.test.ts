import { describe } from 'vitest';
import { describeObservedRun } from './observed-run.js';

describe('two ranks of a run that everybody looks at', () => describeObservedRun('cpu'));
