import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { openRecords } from './records.js';

const folder = mkdtempSync(join(tmpdir(), 'records-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

async function all(path: string): Promise<unknown[]> {
  const records = await openRecords(path);
  const rows = [];
  for (let i = 0; i < records.length; i++) rows.push(await records.get(i));
  records.close();
  return rows;
}

const LINES = '\uFEFF{"text": "one"}\r\n\n  \t\n{"text": "zwei ä"}\n{"text": "3"}';
const ROWS = [{ text: 'one' }, { text: 'zwei ä' }, { text: '3' }];

describe('records', () => {
  it('of JSON lines are the lines that are not blank, in any order, plain or compressed', async () => {
    expect(await all(file('a.jsonl', LINES))).toEqual(ROWS);
    expect(await all(file('a.jsonl.gz', gzipSync(LINES)))).toEqual(ROWS);
    expect(await all(file('a.json', `${LINES}\n`))).toEqual(ROWS);
    const records = await openRecords(join(folder, 'a.jsonl'));
    expect([await records.get(2), await records.get(0)]).toEqual([ROWS[2], ROWS[0]]);
    expect(records.where(1)).toBe(`${join(folder, 'a.jsonl')}:4`);
    records.close();
  });

  it('of JSON lines may cross what is read at a time', async () => {
    const long = Array.from({ length: 5 }, (_, i) => ({ text: String(i).repeat(3_000_000) }));
    expect(await all(file('long.jsonl', long.map((row) => JSON.stringify(row)).join('\n')))).toEqual(long);
  });

  it('of a list are its entries', async () => {
    expect(await all(file('list.json', JSON.stringify(ROWS, null, 1)))).toEqual(ROWS);
  });

  it('of text are its lines', async () => {
    expect(await all(file('a.txt', 'one\r\n\ntwo\n'))).toEqual([{ text: 'one' }, { text: 'two' }]);
  });

  it('of Parquet are its rows, from several groups', async () => {
    const rows = await all(fileURLToPath(new URL('./fixtures/chat.parquet', import.meta.url)));
    expect(rows).toEqual(
      Array.from({ length: 7 }, (_, id) => ({ prompt: `How much is ${id} and ${id}? `, completion: `It is ${2 * id}. é`, id })),
    );
  });

  it.each([
    ['no such file', 'none.jsonl', undefined, 'none.jsonl: no such file; expected a file of training data'],
    ['another ending', 'a.csv', 'x', 'a.csv: expected a file that ends in .jsonl, .json, .parquet or .txt'],
    [
      'a line that is no JSON',
      'bad.jsonl',
      '{"text": "x"}\n\n{"text": oops}\n',
      'bad.jsonl:3: expected a line of JSON, got {"text": oops} (',
    ],
    ['a line that is no object', 'list.jsonl', '[1]\n', 'list.jsonl:1: expected a JSON object such as {"text": "..."}, got a list'],
    ['a list that is cut', 'cut.json', '[{"text": "x"}', 'cut.json: it begins as a list of records but is no JSON'],
    ['no Parquet', 'bad.parquet', 'PAR?', 'bad.parquet: '],
  ])('%s is refused by name', async (_, name, content, message) => {
    const path = content === undefined ? join(folder, name) : file(name, content);
    await expect(all(path)).rejects.toThrow(message);
    await expect(all(path)).rejects.toMatchObject({ code: 'ERR_DATASET' });
  });
});
