import { empty, zeros } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Attrs, Op, VjpContext } from './define-op.js';
import { launch } from './launch.js';

/**
 * The backward call of layer and RMS norm: (dy, h, w, stats, dh?) -> (dx, gradients of the parameters). With a residual, h is
 * the saved sum (output 2) and what flowed back to it is added to dx, which then is the gradient of x and of the residual.
 */
export function normBackward<A extends Attrs>(
  op: Op<A>,
  attrs: A,
  parameterGradients: readonly Tensor[],
  { hasResidual, input, output, grad }: { hasResidual: boolean } & Pick<VjpContext<Attrs>, 'input' | 'output' | 'grad'>,
): Tensor {
  const h = hasResidual ? output(2) : input(0);
  const dh = hasResidual ? grad(2) : undefined;
  // Only the sum may have been used later, not y: then nothing flows through the norm itself.
  const dy = grad(0) ?? zeros(h.device, h.shape, h.dtype);
  const dx = empty(h.device, h.shape, h.dtype);
  launch(op, [dy, h, input(1), output(1), ...(dh ? [dh] : [])], [dx, ...parameterGradients], attrs);
  return dx;
}
