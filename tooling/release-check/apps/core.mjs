import { backward, Device, mul, openBackend, tensor, watch } from '@deepspeed-ts/core';

const device = new Device(openBackend());
const { tensor: x, leaf } = watch(tensor(device, [1, 2, 3], 'f32'));
backward(mul(x, x), tensor(device, [1, 1, 1], 'f32'));
console.log(`gradient of x² at 1, 2, 3 on the '${device.name}' backend: ${(await leaf.gradient.read()).data.join(' ')}`);
