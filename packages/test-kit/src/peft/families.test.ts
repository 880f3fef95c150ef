import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { hostTensor, noGrad, Random, scope, tensor, write } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { AutoModelForCausalLM, type DecoderLM, getPeftModel } from '@deepspeed-ts/transformers';
import { expect, test } from 'vitest';
import { relativeError } from '../golden.js';
import { withDevice } from '../with-device.js';

const families = fileURLToPath(new URL('../../golden/families', import.meta.url));

// Packed heads, gates, soft caps, parallel blocks: wherever a layer stands, its adapter must do what the same numbers in its weight do.
test.each(readdirSync(families))('adapters on %s compute what their sum with the weights does', (family) =>
  withDevice(cpuBackend(), async (device) => {
    const base = await AutoModelForCausalLM.fromPretrained(join(families, family), { device });
    const logits = (model: Pick<DecoderLM, 'logits'>) =>
      scope(() => noGrad(() => model.logits(tensor(device, [3, 1, 4, 1, 5, 9, 2, 6], 'i32', [2, 4]))).readSync().data);
    const before = logits(base);
    const model = getPeftModel(base, { r: 3, loraAlpha: 6 });
    expect(logits(model), 'B is zero').toEqual(before);
    const random = new Random(7);
    for (const { adapter } of model.adapters.values()) {
      const { data } = random.randn(...adapter.b.shape);
      write(
        adapter.b.use(),
        hostTensor(
          adapter.b.shape,
          'f32',
          data.map((x) => 0.3 * x),
        ),
      );
    }
    const adapted = logits(model);
    expect(relativeError(adapted, before)).toBeGreaterThan(1e-2);
    const merged = await model.mergeAndUnload();
    expect(relativeError(logits(merged), adapted)).toBeLessThan(1e-4);
    merged.dispose();
  }),
);
