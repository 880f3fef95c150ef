import { randomBytes } from 'node:crypto';
import type { PickleValue } from '@deepspeed-ts/core';
import type { ManifestBody } from '../checkpoint/manifest.js';
import type { ParameterGroup } from '../engine/optimizer.js';
import type { DeepSpeedCheckpoint } from './checkpoint.js';
import { type Fields, numberOf } from './fields.js';
import { JsonConversion } from './json.js';
import type { GroupState } from './state.js';

/** The manifest of a converted checkpoint, and what it could not say. */
export function describe(checkpoint: DeepSpeedCheckpoint): { body: Omit<ManifestBody, 'files'>; notes: string[] } {
  const { model, tag, stage, worldSize, steps, stateNames, globalSteps, skippedSteps, lossScaler, aliases, warnings } = checkpoint;
  const notes = [...warnings];
  for (const [alias, name] of aliases) notes.push(`${alias} is ${name} under another name: written once`);
  const json = new JsonConversion();
  const entries = [...model.clientState()].flatMap(([name, value]) => {
    const converted = json.convert(value, name);
    return converted === undefined ? [] : [[name, converted] as const];
  });
  if (json.leftOut.length > 0) notes.push(`client state that JSON can't hold is left out: ${json.leftOut.join(', ')}`);
  const iteration = numberOf(model.fields.optionalFields('lr_scheduler')?.get('last_batch_iteration'));
  if (model.fields.has('lr_scheduler') && iteration === undefined)
    notes.push("the learning-rate schedule is not one of DeepSpeed's, so its place is not known: load with { scheduler: false }");
  for (const key of ['data_sampler', 'random_ltd'])
    if (model.fields.has(key)) notes.push(`${key} is left out: there is no such feature here`);
  if (stateNames.length === 0) notes.push('there is no optimizer state: load with { optimizer: false }');
  if (checkpoint.excluded.length > 0) notes.push(`frozen weights are not in the checkpoint: ${checkpoint.excluded.join(', ')}`);
  const body = {
    tag,
    id: randomBytes(8).toString('hex'),
    saved_at: new Date().toISOString(),
    global_steps: globalSteps,
    // DeepSpeed keeps no gradients: its checkpoints are from between steps.
    samples_in_step: 0,
    train_batch_size: trainBatchSize(checkpoint),
    skipped_steps: skippedSteps,
    backward_scale: null,
    seed: 0,
    world_size: worldSize,
    zero_stage: stage,
    dtype: dtypeOf(model.config),
    optimizer: { steps, states: stateNames, groups: checkpoint.groups.map(groupOf) },
    scheduler: iteration === undefined ? null : { last_batch_iteration: iteration },
    loss_scaler: lossScaler ?? null,
    dataloader: null,
    client_state: entries.length > 0 ? Object.fromEntries(entries) : null,
    excluded_weights: checkpoint.excluded,
  };
  return { body, notes };
}

function dtypeOf(config: Fields): string {
  const enabled = (key: string) => config.get(key) instanceof Map && config.fields(key).get('enabled') === true;
  if (enabled('bf16') || enabled('bfloat16')) return 'bf16';
  return enabled('fp16') ? 'f16' : 'f32';
}

function trainBatchSize({ model, worldSize, globalSteps }: DeepSpeedCheckpoint): number {
  const { config, fields } = model;
  const given = numberOf(config.get('train_batch_size'));
  if (given !== undefined) return given;
  const micro = numberOf(config.get('train_micro_batch_size_per_gpu'));
  if (micro !== undefined) return micro * (numberOf(config.get('gradient_accumulation_steps')) ?? 1) * worldSize;
  const samples = fields.integer('global_samples', 0);
  return globalSteps > 0 ? Math.round(samples / globalSteps) : 0;
}

/** DeepSpeed's names of settings, and ours. */
const SETTINGS: Readonly<Record<string, string>> = {
  lr: 'lr',
  betas: 'betas',
  eps: 'eps',
  weight_decay: 'weightDecay',
  momentum: 'momentum',
};

function groupOf({ names, settings }: GroupState): ParameterGroup {
  const json = new JsonConversion();
  const known = Object.entries(SETTINGS).flatMap(([theirs, ours]) => {
    const value = json.convert((settings.get(theirs) ?? null) as PickleValue, theirs);
    return value == null ? [] : [[ours, value] as const];
  });
  return { names, options: Object.fromEntries(known) as unknown as ParameterGroup['options'] };
}
