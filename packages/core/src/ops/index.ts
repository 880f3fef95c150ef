// One line for each op file: `ops` is what the op contract walks.
import { accumulate } from './accumulate.js';
import { gegluBackwardRecompute, geluBackwardRecompute, swigluBackwardRecompute } from './activation-recompute.js';
import { adagradOp } from './adagrad.js';
import { adamwOp } from './adamw.js';
import { adamw8bitOp, decode8bit } from './adamw-8bit.js';
import { addOp } from './add.js';
import { attentionBackward, attentionOp } from './attention.js';
import { cacheAppend, cachedAttentionOp } from './cached-attention.js';
import { cast } from './cast.js';
import { combine } from './combine.js';
import { copy } from './copy.js';
import type { Op } from './define-op.js';
import { divOp } from './div.js';
import { dropoutOp } from './dropout.js';
import { embeddingBackward, embeddingOp } from './embedding.js';
import { expertLinear, expertLinearDw, expertLinearDx } from './expert-linear.js';
import { expertSwiglu, expertSwigluBackward } from './expert-swiglu.js';
import { expertsOp } from './experts.js';
import { fillOp } from './fill.js';
import { fp8Advance } from './fp8-advance.js';
import { fp8Cast } from './fp8-cast.js';
import { fp8Matmul } from './fp8-matmul.js';
import { fp8Swiglu, fp8SwigluBackward } from './fp8-swiglu.js';
import { gegluBackward, gegluOp } from './geglu.js';
import { geluBackward, geluOp } from './gelu.js';
import { gradNorm, sumSquares } from './grad-norm.js';
import { headNormBackward, headNormOp } from './head-norm.js';
import { jitterOp } from './jitter.js';
import { lambMoments, lambRatio, lambUpdate } from './lamb.js';
import { layerNormBackward, layerNormOp } from './layer-norm.js';
import { columnSum, linearDw, linearDx, linearOp } from './linear.js';
import {
  linearCrossEntropyBackward,
  linearCrossEntropyFused,
  linearCrossEntropyFusedBackward,
  linearCrossEntropyOp,
} from './linear-cross-entropy.js';
import { linearFp8Op } from './linear-fp8.js';
import { linearGelu, linearGeluBackward } from './linear-gelu.js';
import { lionOp } from './lion.js';
import { linearAdd, loraOp } from './lora.js';
import { matmulOp } from './matmul.js';
import { mlpOp } from './mlp.js';
import { mlpFp8Op } from './mlp-fp8.js';
import { mulOp } from './mul.js';
import { blend, muonMomentum, normalize } from './muon.js';
import { dequantize, quantize } from './quantize.js';
import { randomNormal, randomUniform } from './random-normal.js';
import { reluBackward, reluOp } from './relu.js';
import { rmsNormBackward, rmsNormOp } from './rms-norm.js';
import { ropeOp } from './rope.js';
import { routeBackward, routeOp } from './route.js';
import { loadBalanceBackward, loadBalanceOp, routerLoadBackward, routerLoadOp } from './router-load.js';
import { penalizeTokensOp, sampleTokenOp } from './sample-token.js';
import { scaleOp } from './scale.js';
import { sgdOp } from './sgd.js';
import { shiftIdsOp } from './shift-ids.js';
import { softcapBackward, softcapOp } from './softcap.js';
import { softmaxBackward, softmaxOp } from './softmax.js';
import { swapHeadsOp } from './swap-heads.js';
import { swigluBackward, swigluOp } from './swiglu.js';

// biome-ignore lint/suspicious/noExplicitAny: ops differ in their attributes
export const ops: readonly Op<any>[] = [
  accumulate,
  adagradOp,
  adamwOp,
  adamw8bitOp,
  addOp,
  attentionOp,
  attentionBackward,
  blend,
  cacheAppend,
  cachedAttentionOp,
  cast,
  columnSum,
  combine,
  copy,
  decode8bit,
  dequantize,
  divOp,
  dropoutOp,
  embeddingOp,
  embeddingBackward,
  expertLinear,
  expertLinearDw,
  expertLinearDx,
  expertSwiglu,
  expertSwigluBackward,
  expertsOp,
  fillOp,
  fp8Advance,
  fp8Cast,
  fp8Matmul,
  fp8Swiglu,
  fp8SwigluBackward,
  gegluOp,
  gegluBackward,
  gegluBackwardRecompute,
  geluOp,
  geluBackward,
  geluBackwardRecompute,
  gradNorm,
  headNormOp,
  headNormBackward,
  jitterOp,
  lambMoments,
  lambRatio,
  lambUpdate,
  layerNormOp,
  layerNormBackward,
  linearOp,
  linearAdd,
  linearDw,
  linearDx,
  linearFp8Op,
  linearGelu,
  linearGeluBackward,
  linearCrossEntropyOp,
  linearCrossEntropyBackward,
  linearCrossEntropyFused,
  linearCrossEntropyFusedBackward,
  lionOp,
  loraOp,
  loadBalanceOp,
  loadBalanceBackward,
  matmulOp,
  mlpOp,
  mlpFp8Op,
  mulOp,
  muonMomentum,
  normalize,
  penalizeTokensOp,
  quantize,
  randomNormal,
  randomUniform,
  reluOp,
  reluBackward,
  rmsNormOp,
  rmsNormBackward,
  ropeOp,
  sampleTokenOp,
  routeOp,
  routeBackward,
  routerLoadOp,
  routerLoadBackward,
  scaleOp,
  sgdOp,
  shiftIdsOp,
  softcapOp,
  softcapBackward,
  softmaxOp,
  softmaxBackward,
  sumSquares,
  swapHeadsOp,
  swigluOp,
  swigluBackward,
  swigluBackwardRecompute,
];

export { add } from './add.js';
export { type AttentionOptions, attention } from './attention.js';
export { appendToCache, type CachedAttentionOptions, cachedAttention, type KeyValueCache } from './cached-attention.js';
export { castTo } from './cast.js';
export { type Attrs, defineOp, type GradientTarget, type Op, type OpDefinition, type Sample, type VjpContext } from './define-op.js';
export { div } from './div.js';
export { dropout } from './dropout.js';
export { CODE_BLOCK } from './dynamic-code.js';
export { embedding } from './embedding.js';
export { type ExpertWeights, experts } from './experts.js';
export { gelu } from './gelu.js';
export { headNorm } from './head-norm.js';
export { jitter } from './jitter.js';
export { launch } from './launch.js';
export { layerNorm } from './layer-norm.js';
export { type LinearLayout, linear } from './linear.js';
export { linearCrossEntropy } from './linear-cross-entropy.js';
export { type Fp8Layer, linearFp8 } from './linear-fp8.js';
export { type LoraOptions, lora } from './lora.js';
export { matmul } from './matmul.js';
export { activate, isGated, type MlpActivation, mlp } from './mlp.js';
export { mlpFp8 } from './mlp-fp8.js';
export { mul } from './mul.js';
export {
  codesOf,
  QUANTIZED_BLOCK,
  QUANTIZED_FORMATS,
  type QuantizedFormat,
  scalesOf,
} from './quantized-format.js';
export { Random } from './random-samples.js';
export { rmsNorm } from './rms-norm.js';
export { rope } from './rope.js';
export { type Routing, route } from './route.js';
export { loadBalance, routerLoad } from './router-load.js';
export { penalizeTokens, type SampleOptions, sampleToken } from './sample-token.js';
export { scale } from './scale.js';
export { shiftIds } from './shift-ids.js';
export { softcap } from './softcap.js';
export { softmax } from './softmax.js';
export { swapHeads } from './swap-heads.js';
export { swiglu } from './swiglu.js';
export {
  accumulate,
  adagradOp,
  adamw8bitOp,
  adamwOp,
  blend,
  cast,
  copy,
  decode8bit,
  dequantize,
  gradNorm,
  lambMoments,
  lambRatio,
  lambUpdate,
  lionOp,
  matmulOp,
  muonMomentum,
  normalize,
  quantize,
  sgdOp,
  sumSquares,
};
