import { type Argument, apply } from '../autograd/apply.js';
import { empty } from '../tensor/create.js';
import { hostTensor } from '../tensor/host.js';
import { scope } from '../tensor/scope.js';
import type { Tensor, TensorSpec } from '../tensor/tensor.js';
import { gegluBackwardRecompute, geluBackwardRecompute, swigluBackwardRecompute } from './activation-recompute.js';
import { type Attrs, defineOp, type Op, type VjpContext } from './define-op.js';
import { gegluBackward, gegluOp } from './geglu.js';
import { geluBackward, geluOp } from './gelu.js';
import { launch } from './launch.js';
import { type LinearLayout, linearOp } from './linear.js';
import { linearGelu, linearGeluBackward } from './linear-gelu.js';
import { reluBackward, reluOp } from './relu.js';
import { swigluBackward, swigluOp } from './swiglu.js';

/**
 * 'gelu' is exact, 'gelu_tanh' GPT-2's approximation; 'swiglu', 'geglu' and 'geglu_tanh' take the halves [gate | up] of what the first
 * maps give.
 */
export type MlpActivation = 'gelu' | 'gelu_tanh' | 'swiglu' | 'relu' | 'geglu' | 'geglu_tanh';
const ACTIVATIONS: readonly MlpActivation[] = ['gelu', 'gelu_tanh', 'swiglu', 'relu', 'geglu', 'geglu_tanh'];

/** Whether half of what the first maps give is a gate. */
export function isGated(activation: MlpActivation): boolean {
  return activation === 'swiglu' || activation === 'geglu' || activation === 'geglu_tanh';
}

interface MlpAttrs extends Record<string, number> {
  /** Weights of the first map, whose columns lie side by side. */
  n: number;
  hasBias: number;
  layout: number;
  /** Index into ACTIVATIONS. */
  activation: number;
}

/**
 * y = act(h) W' + b with h = [x W_0' + b_0 | ...]: a transformer's feed-forward part. Inputs x [..., I], n weights, their n biases
 * when hasBias, the last weight, its bias when hasBias; outputs y and h. Backward keeps x and h and computes act(h) again while it
 * computes the gradient of h, which costs no pass over memory of its own: of the three large arrays one less is kept.
 */
export const mlpOp = defineOp<MlpAttrs>({
  name: 'mlp',
  attrs: ['n', 'hasBias', 'layout', 'activation'],
  infer(inputs, attrs) {
    const { act, first, last, end } = partsOf(attrs);
    const [h] = linearOp.infer(inputs.slice(0, end), first);
    const [a] = act.forward.infer([h!], act.attrs);
    const [y] = linearOp.infer([a!, ...inputs.slice(end)], last);
    return [y!, h!];
  },
  reference(inputs, attrs, [y, h]) {
    const { act, first, last, end } = partsOf(attrs);
    linearOp.reference(inputs.slice(0, end), first, [h!]);
    const [spec] = act.forward.infer([h!], act.attrs);
    const a = hostTensor(spec!.shape, spec!.dtype);
    act.forward.reference([h!], act.attrs, [a]);
    linearOp.reference([a, ...inputs.slice(end)], last, [y!]);
  },
  compose(inputs, attrs, [y, h]) {
    const { act, first, last, end } = partsOf(attrs);
    scope(() => {
      const a = activated(act, h!);
      if (isTanhGelu(attrs) && attrs.n === 1 && attrs.hasBias) launch(linearGelu, inputs.slice(0, end), [a, h!], { layout: attrs.layout });
      else {
        launch(linearOp, inputs.slice(0, end), [h!], first);
        launch(act.forward, [h!], [a], act.attrs);
      }
      launch(linearOp, [a, ...inputs.slice(end)], [y!], last);
    });
  },
  saves: { inputs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], outputs: [1] },
  vjp(context) {
    const { inputSpecs, input, wants, into } = context;
    const { act, first, last, end } = partsOf(context.attrs);
    const h = context.output(1);
    const a = activated(act, h);
    /** The last map's gradients are linear's own, with `a` in the place of input 0 and the others from `end` on. */
    const lastMap: VjpContext<typeof last> = {
      ...context,
      attrs: last,
      inputSpecs: [a, ...inputSpecs.slice(end)],
      input: (i) => (i === 0 ? a : input(end + i - 1)),
      wants: (i) => i > 0 && wants(end + i - 1),
      into: (i) => into(end + i - 1),
    };
    const wantsFirst = inputSpecs.slice(0, end).some((_, i) => wants(i));
    const dy = context.grad(0)!;
    const firstMap = (dh: Tensor, rest = wants): VjpContext<typeof first> => ({
      ...context,
      attrs: first,
      inputSpecs: inputSpecs.slice(0, end),
      wants: rest,
      grad: () => dh,
    });
    // Everything learns, as in most training: gelu', the activation and the gradient of the first bias are one pass.
    const bias = 2;
    if (isTanhGelu(context.attrs) && first.n === 1 && first.hasBias && wants(bias) && wants(end)) {
      const dh = empty(h.device, h.shape, h.dtype);
      const { tensor: db, accumulate } = into(bias);
      launch(linearGeluBackward, [dy, input(end), h], [dh, a, db], { layout: last.layout, accumulate });
      linearOp.vjp!(lastMap);
      a.dispose();
      linearOp.vjp!(firstMap(dh, (i) => i !== bias && wants(i)));
      return;
    }
    let dh: Tensor | undefined;
    if (wantsFirst) {
      const da = activated(act, h);
      linearOp.vjp!({ ...lastMap, wants: (i) => i === 0, into: () => ({ tensor: da, accumulate: 0 }) });
      dh = empty(h.device, h.shape, h.dtype);
      if (wants(end) && act.backwardRecompute) launch(act.backwardRecompute, [da, h], [dh, a], act.attrs);
      else {
        launch(act.backward, [da, h], [dh], act.attrs);
        if (wants(end)) launch(act.forward, [h], [a], act.attrs);
      }
      da.dispose();
    } else if (wants(end)) launch(act.forward, [h], [a], act.attrs);
    linearOp.vjp!(lastMap);
    a.dispose();
    if (dh) linearOp.vjp!(firstMap(dh));
  },
  samples: (r) => {
    const gelu = { n: 1, hasBias: 1, layout: 1, activation: 1 };
    return [
      { inputs: [r.randn(2, 3, 5), r.randn(5, 7), r.randn(7), r.randn(7, 4), r.randn(4)], attrs: gelu },
      { inputs: [r.randn(6, 5), r.randn(8, 5), r.randn(5, 8)], attrs: { ...gelu, hasBias: 0, layout: 0, activation: 0 } },
      {
        inputs: [r.randn(6, 5), r.randn(4, 5), r.randn(4, 5), r.randn(5, 4)],
        attrs: { n: 2, hasBias: 0, layout: 0, activation: 2 },
        note: 'gate and up',
      },
      {
        inputs: [r.randn(6, 5), r.randn(4, 5), r.randn(4, 5), r.randn(4), r.randn(4), r.randn(5, 4), r.randn(5)],
        attrs: { n: 2, hasBias: 1, layout: 0, activation: 2 },
        note: 'gate and up with biases',
      },
      {
        inputs: [r.randn(6, 5), r.randn(8, 5), r.randn(5, 4)],
        attrs: { n: 1, hasBias: 0, layout: 0, activation: 5 },
        note: 'gate and up packed',
      },
      { inputs: [r.randn(6, 5), r.randn(7, 5), r.randn(7), r.randn(4, 7), r.randn(4)], attrs: { ...gelu, layout: 0, activation: 3 } },
    ];
  },
});

/** The feed-forward part of x [..., I]; see {@link mlpOp}. All maps with a bias or none. */
export function mlp(x: Argument, first: readonly MlpMap[], last: MlpMap, activation: MlpActivation, layout: LinearLayout): Tensor {
  const maps = [...first, last];
  const biases = maps.flatMap(({ bias }) => (bias ? [bias] : []));
  const hasBias = Number(biases.length > 0);
  const args = [x, ...first.map(({ weight }) => weight), ...biases.slice(0, -1), last.weight, ...biases.slice(-1)];
  const attrs = { n: first.length, hasBias, layout: Number(layout === 'in_out'), activation: ACTIVATIONS.indexOf(activation) };
  const [y, h] = apply(mlpOp, args, attrs);
  // The tape holds h where there is a backward pass to come.
  h!.dispose();
  return y!;
}

/** The activation alone, of what the first maps gave: [..., F], or [..., 2F] where it is gated. */
export function activate(h: Tensor, activation: MlpActivation): Tensor {
  const { forward, attrs } = activationOf(activation);
  return apply(forward, [h], attrs)[0]!;
}

/** A linear map: a layer will do. */
export interface MlpMap {
  readonly weight: Argument;
  readonly bias?: Argument;
}

interface Activation {
  readonly attrs: Attrs;
  readonly forward: Op;
  readonly backward: Op;
  /** Both in one pass. */
  readonly backwardRecompute?: Op;
}

const swigluActivation = { attrs: {}, forward: swigluOp, backward: swigluBackward, backwardRecompute: swigluBackwardRecompute };
const reluActivation = { attrs: {}, forward: reluOp, backward: reluBackward };
const geluActivation = { forward: geluOp, backward: geluBackward, backwardRecompute: geluBackwardRecompute };
const gegluActivation = { forward: gegluOp, backward: gegluBackward, backwardRecompute: gegluBackwardRecompute };

function activationOf(name: MlpActivation): Activation {
  if (name === 'swiglu') return swigluActivation;
  if (name === 'relu') return reluActivation;
  const ops = name.startsWith('geglu') ? gegluActivation : geluActivation;
  return { attrs: { tanh: Number(name.endsWith('tanh')) }, ...(ops as unknown as Omit<Activation, 'attrs'>) };
}

/** The pieces as ops of their own: inputs before `end` are those of the first map, the rest are the last's after its input. */
function partsOf({ n, hasBias, layout, activation }: MlpAttrs) {
  const act = activationOf(ACTIVATIONS[activation]!);
  return { act, first: { n, hasBias, layout }, last: { n: 1, hasBias, layout }, end: 1 + n * (1 + hasBias) };
}

function isTanhGelu({ activation }: MlpAttrs): boolean {
  return ACTIVATIONS[activation] === 'gelu_tanh';
}

/** Room for act(h). */
function activated({ forward, attrs }: Activation, h: Tensor): Tensor {
  const [spec] = forward.infer([h as TensorSpec], attrs);
  return empty(h.device, spec!.shape, spec!.dtype);
}
