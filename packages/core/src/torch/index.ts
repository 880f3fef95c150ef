export type { TorchDType } from './dtypes.js';
export { TorchFileError } from './error.js';
export { openTorchFile, type TorchFile } from './file.js';
export { TorchTensor } from './tensor.js';
