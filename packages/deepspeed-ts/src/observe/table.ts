/** Columns of text, the first one to the left and the others to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)));
  const line = (cells: readonly string[]) =>
    cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join('  ');
  return [head, ...rows].map((cells) => line(cells).trimEnd()).join('\n');
}

export function bytesText(bytes: number): string {
  return scaled(bytes, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
}

/** 1.5e9 -> '1.50 G' */
export function countText(count: number): string {
  return scaled(count, 1000, ['', 'K', 'M', 'G', 'T', 'P']).trimEnd();
}

function scaled(value: number, step: number, units: readonly string[]): string {
  const unit = value > 0 ? Math.min(units.length - 1, Math.max(0, Math.floor(Math.log(value) / Math.log(step) + 1e-9))) : 0;
  return `${unit === 0 ? Number(value.toFixed(2)) : (value / step ** unit).toFixed(2)} ${units[unit]}`;
}
