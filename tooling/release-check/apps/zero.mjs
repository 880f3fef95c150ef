import { backward, Device, Embedding, init, linearCrossEntropy, Module, openBackend, scope, tensor } from '@deepspeed-ts/core';
import { adam, ZeroStore } from '@deepspeed-ts/zero';

/** Says of each token which comes next. */
class Bigrams extends Module {
  embed = new Embedding(16, 8, init.normal(0.1));
  head = new Embedding(16, 8, init.normal(0.1));
  forward({ inputIds, labels }) {
    return linearCrossEntropy(this.embed.call(inputIds), this.head.weight, labels);
  }
}

const settings = { lr: 0.01, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, decoupled: true, biasCorrection: true };
const device = new Device(openBackend());
const model = new Bigrams();
const store = new ZeroStore(model, { device, stage: 3, optimizer: adam });
for (let step = 0; step < 3; step++) {
  const loss = scope(() => {
    const ids = [1, 2, 3, 4, 5, 6, 7, 8];
    const inputIds = tensor(device, ids, 'i32', [1, 8]);
    const labels = tensor(device, [...ids.slice(1), 9], 'i32', [1, 8]);
    const loss = model.call({ inputIds, labels });
    backward(loss);
    return loss;
  });
  store.finishBackward();
  store.step({ optionsOf: () => settings });
  console.log(`stage 3, step ${step}: loss ${(await loss.item()).toFixed(4)}`);
}
