export { type AdagradOptions, adagrad } from './adagrad.js';
export { type AdamOptions, adam } from './adam.js';
export { adamw8bit } from './adamw-8bit.js';
export { type LambOptions, lamb } from './lamb.js';
export { type LionOptions, lion } from './lion.js';
export { type Muon, type MuonOptions, muon } from './muon.js';
export { orthogonalize } from './orthogonalize.js';
export { plainSgd, type SgdOptions, sgd } from './sgd.js';
