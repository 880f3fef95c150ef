export { dtypesOf, lossScalerOf, skipsOverflow } from './from-config.js';
export { type DynamicLossScaleOptions, DynamicLossScaler, type LossScaler, type LossScalerState } from './loss-scaler.js';
