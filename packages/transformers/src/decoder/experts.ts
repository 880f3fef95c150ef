import {
  type Child,
  type ExpertWeights,
  experts,
  init,
  jitter,
  linear,
  Module,
  Parameter,
  route,
  routerLoad,
  type Tensor,
} from '@deepspeed-ts/core';
import type { DecoderConfig, ExpertsConfig } from './config.js';

/** What experts give: the result, and how evenly their router spread the tokens, f32 [2, count], where that was asked for. */
export interface ExpertsOutput {
  readonly y: Tensor;
  readonly load?: Tensor | undefined;
}

/**
 * A feed-forward part of several experts (arXiv:2401.04088): a router gives each token to the few that it finds most probable, and what
 * those make of it adds up by their shares. Tokens are never dropped, and nothing about where they went leaves the device.
 */
export class SparseExperts extends Module<[Tensor, boolean?], ExpertsOutput> {
  readonly #config: DecoderConfig;
  readonly #experts: ExpertsConfig;
  readonly #router: Router;
  readonly #all: Expert[];

  constructor(config: DecoderConfig, experts: ExpertsConfig) {
    super();
    this.#config = config;
    this.#experts = experts;
    this.#router = new Router(config, experts);
    this.#all = Array.from({ length: experts.count }, () => new Expert(config));
  }

  override *children(): Iterable<readonly [string, Child]> {
    const { names } = this.#config;
    yield [names.router!, this.#router];
    yield [names.experts!, this.#all];
  }

  forward(x: Tensor, wantsLoad = false): ExpertsOutput {
    const { perToken, jitter: amount } = this.#experts;
    // Noise reaches the experts as well as the router, as in the model that introduced it here.
    const noisy = jitter(x, amount);
    const logits = this.#router.call(noisy);
    const routing = route(logits, perToken);
    return { y: experts(noisy, routing, this.#all), load: wantsLoad ? routerLoad(logits, routing) : undefined };
  }
}

/** Scores of the experts [.., count]. Stays in the precision of activations where layers train in 8 bits: a choice is no matter of degree. */
class Router extends Module<[Tensor], Tensor> {
  override readonly keepsPrecision = true;
  readonly weight: Parameter;

  constructor({ dim, initStd }: DecoderConfig, { count }: ExpertsConfig) {
    super();
    this.weight = new Parameter([count, dim], init.normal(initStd));
  }

  forward(x: Tensor): Tensor {
    return linear(x, [this.weight]);
  }
}

/** The weights of one expert. All of a part's experts run as one op, so it has no forward pass of its own. */
class Expert extends Module<[], never> implements ExpertWeights {
  readonly gate: Parameter;
  readonly up: Parameter;
  readonly down: Parameter;
  readonly #names: readonly string[];

  constructor({ dim, mlpDim, initStd, residualInitStd, names }: DecoderConfig) {
    super();
    this.gate = new Parameter([mlpDim, dim], init.normal(initStd));
    this.up = new Parameter([mlpDim, dim], init.normal(initStd));
    this.down = new Parameter([dim, mlpDim], init.normal(residualInitStd));
    this.#names = [...names.mlpIn, names.mlpOut];
  }

  override *children(): Iterable<readonly [string, Child]> {
    const [gate, up, down] = this.#names;
    yield [`${gate}.weight`, this.gate];
    yield [`${down}.weight`, this.down];
    yield [`${up}.weight`, this.up];
  }

  forward(): never {
    throw new Error('an expert runs with the others: call SparseExperts');
  }
}
