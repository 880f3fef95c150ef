import { bytesText, table } from '../table.js';
import type { CollectiveRecord } from './collective-record.js';
import type { CommunicationRow } from './communication-log.js';

/** A line for one collective. */
export function formatRecord({ op, tag, bytes, timing }: CollectiveRecord): string {
  const { begun, met, ended } = timing;
  const waited = met > begun ? `, ${(met - begun).toFixed(3)} ms of it for other ranks` : '';
  return `comm ${op}${tag ? ` '${tag}'` : ''}  ${bytesText(bytes)}  ${(ended - begun).toFixed(3)} ms${waited}`;
}

/** The table of `summary()`. */
export function formatSummary(rows: readonly CommunicationRow[]): string {
  if (rows.length === 0) return 'communication: no collective has been timed';
  const head = ['collective', 'message', 'count', 'total ms', 'mean ms', 'waiting ms', 'alg GB/s', 'bus GB/s', 'spread ms', 'last rank'];
  const cells = rows.map((row) => [
    row.tag ? `${row.op} '${row.tag}'` : row.op,
    bytesText(row.bytes),
    String(row.count),
    row.totalMs.toFixed(2),
    row.meanMs.toFixed(3),
    row.waitMs.toFixed(3),
    row.algorithmGBps.toFixed(3),
    row.busGBps.toFixed(3),
    row.spreadMs?.toFixed(3) ?? '-',
    row.lastRank?.toString() ?? '-',
  ]);
  return `communication (bandwidths as nccl-tests count them; spread: how far apart ranks come)\n${table(head, cells)}`;
}
