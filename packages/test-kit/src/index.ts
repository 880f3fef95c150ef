export { gradientContract, opContract, type OpContractOptions } from './op-contract.js';
export { withDevice } from './with-device.js';
