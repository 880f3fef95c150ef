import { type PickleValue, type TorchFile, TorchTensor } from '@deepspeed-ts/core';
import { Fields, shapesOf } from './fields.js';

/** What DeepSpeed itself keeps in a file of model states; everything else came from the caller. */
const OWN_KEYS = new Set([
  'module',
  'buffer_names',
  'optimizer',
  'param_shapes',
  'frozen_param_shapes',
  'shared_params',
  'frozen_param_fragments',
  'lr_scheduler',
  'data_sampler',
  'random_ltd',
  'sparse_tensor_module_names',
  'csr_tensor_module_names',
  'skipped_steps',
  'global_steps',
  'global_samples',
  'dp_world_size',
  'mp_world_size',
  'num_experts',
  'checkpoint_parallel_dimensions',
  'universal_checkpoint_info',
  'ds_config',
  'ds_version',
]);

/** A file of model states. */
export class ModelStates {
  readonly fields: Fields;
  /** Weights and buffers by name; at stage 3 weights have no elements here. */
  readonly module = new Map<string, TorchTensor>();
  readonly buffers: ReadonlySet<string>;
  /** Of trained parameters by group, in the order in which they lie in flat vectors; `undefined` at stage 0. */
  readonly shapes: readonly ReadonlyMap<string, readonly number[]>[] | undefined;
  readonly frozenShapes: ReadonlyMap<string, readonly number[]>;

  constructor(file: TorchFile) {
    this.fields = Fields.of(file.path, file.root);
    for (const [name, value] of this.fields.fields('module').named()) if (value instanceof TorchTensor) this.module.set(name, value);
    this.buffers = new Set(this.fields.has('buffer_names') ? (this.fields.list('buffer_names') as readonly string[]) : []);
    this.shapes = this.fields.has('param_shapes')
      ? this.fields.list('param_shapes').map((group) => shapesOf(Fields.of(file.path, group, 'param_shapes')))
      : undefined;
    const frozen = this.fields.optionalFields('frozen_param_shapes');
    this.frozenShapes = frozen ? shapesOf(frozen) : new Map();
  }

  get worldSize(): number {
    return this.fields.integer('dp_world_size', 1);
  }

  get config(): Fields {
    return this.fields.optionalFields('ds_config') ?? new Fields(this.fields.path, 'ds_config', new Map());
  }

  /** Whole at stages 0 to 2, this rank's part at stage 3. */
  frozenFragment(name: string): TorchTensor | undefined {
    const fragment = this.fields.optionalFields('frozen_param_fragments')?.get(name);
    return fragment instanceof TorchTensor ? fragment : undefined;
  }

  /** Names of a parameter that has another one too, with that one. */
  get aliases(): Map<string, string> {
    const aliases = new Map<string, string>();
    const shared = this.fields.get('shared_params');
    // A dictionary, or pairs.
    const pairs: Iterable<readonly [PickleValue, PickleValue]> = shared instanceof Map ? shared : Array.isArray(shared) ? shared : [];
    for (const [alias, name] of pairs) if (typeof alias === 'string' && typeof name === 'string') aliases.set(alias, name);
    const places = new Map<string, string>();
    for (const [name, { storage, offset, shape, numel }] of this.module) {
      if (numel === 0 || aliases.has(name)) continue;
      const place = `${storage.key}@${offset}:${shape}`;
      const first = places.get(place);
      if (first === undefined) places.set(place, name);
      else aliases.set(name, first);
    }
    return aliases;
  }

  *clientState(): Generator<readonly [string, PickleValue]> {
    for (const [name, value] of this.fields.named()) if (!OWN_KEYS.has(name)) yield [name, value];
  }
}
