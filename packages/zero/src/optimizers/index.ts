export { type AdagradOptions, adagrad } from './adagrad.js';
export { type AdamOptions, adam } from './adam.js';
export { type LionOptions, lion } from './lion.js';
export { plainSgd, type SgdOptions, sgd } from './sgd.js';
