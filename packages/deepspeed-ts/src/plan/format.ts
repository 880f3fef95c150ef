import { formatBytes } from './bytes.js';
import type { MemoryPlan, MemoryRows } from './memory-plan.js';

const ROWS: readonly (readonly [keyof MemoryRows, string])[] = [
  ['parameters', 'parameters'],
  ['gathered', 'gathered parameters'],
  ['gradients', 'gradients'],
  ['master', 'master weights'],
  ['optimizer', 'optimizer state'],
  ['activations', 'activations'],
  ['communication', 'communication buffers'],
  ['data', 'data and tables'],
  ['host', 'offloaded'],
];

/** A plan as a table for people. */
export function formatPlan(plan: MemoryPlan): string {
  const { peak, steady, settings, worldSize, modelParameters, device } = plan;
  const { stage, dtype, microBatch, accumulation, sequenceLength, recompute } = settings;
  const shape = [`${microBatch} sample${microBatch > 1 ? 's' : ''}`, ...(sequenceLength ? [`${sequenceLength} tokens`] : [])].join(' of ');
  const title = `${(modelParameters / 1e6).toFixed(1)} M parameters, stage ${stage}, ${dtype}, ${worldSize} rank${worldSize > 1 ? 's' : ''} (${device})`;
  const table: (readonly [string, string, string])[] = [['per rank', 'at the peak', 'between steps']];
  for (const [key, name] of ROWS)
    if (peak.rows[key] || steady[key]) table.push([name, formatBytes(peak.rows[key]), formatBytes(steady[key])]);
  table.push(['live', formatBytes(peak.bytes), formatBytes(Object.values(steady).reduce((a, b) => a + b, 0))]);
  table.push(['rounding and gaps', formatBytes(plan.reserved - peak.bytes), '']);
  table.push(['workspace of kernels', formatBytes(plan.workspace), '']);
  for (const [name, bytes] of Object.entries(plan.fixed)) table.push([name, formatBytes(bytes), '']);
  table.push(['needed of the device', formatBytes(plan.required), '']);
  for (const [name, bytes] of Object.entries(plan.host)) table.push([`host: ${name}`, formatBytes(bytes), '']);
  const widths = [0, 1, 2].map((column) => Math.max(...table.map((row) => row[column]!.length)));
  const lines = table.map(([a, b, c]) => `  ${a.padEnd(widths[0]!)}  ${b.padStart(widths[1]!)}  ${c.padStart(widths[2]!)}`.trimEnd());
  const when = peak.when.unit ? `${peak.when.phase} of ${peak.when.unit}` : peak.when.phase;
  return [
    title,
    `micro-batch of ${shape}, ${accumulation} to a step${recompute ? ', activations recomputed' : ''}`,
    '',
    ...lines,
    '',
    `The peak is in the ${when}.`,
  ].join('\n');
}
