export { PickleError } from './error.js';
export { NumpyArray } from './numpy.js';
export { describePickled, PickleGlobal, PickleObject, type PickleValue } from './values.js';
