import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';

const script = fileURLToPath(new URL('./ci-summary.mjs', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'ci-summary-'));
afterAll(() => rmSync(folder, { recursive: true }));

function summary(report: object | undefined, testStatus: number, checkStatus: number): { last: string; status: number | null } {
  const path = join(folder, 'report.json');
  rmSync(path, { force: true });
  if (report) writeFileSync(path, JSON.stringify(report));
  const { stdout, status } = spawnSync(process.execPath, [script, path, String(testStatus), String(checkStatus)], { encoding: 'utf8' });
  return { last: stdout.trimEnd().split('\n').at(-1)!, status };
}

const clean = { numPassedTests: 5, numFailedTests: 0, numPendingTests: 1, numTodoTests: 1, testResults: [] };

it('counts what passed and was skipped, and succeeds when nothing failed', () => {
  expect(summary(clean, 0, 0)).toEqual({ last: '5 passed, 0 failed, 2 skipped', status: 0 });
});

it('counts a failed check as a failure', () => {
  expect(summary(clean, 0, 1)).toEqual({ last: '5 passed, 1 failed, 2 skipped', status: 1 });
});

it('counts a file that did not load, which has no tests to fail', () => {
  const testResults = [{ status: 'failed', assertionResults: [] }];
  expect(summary({ ...clean, testResults }, 1, 0)).toEqual({ last: '5 passed, 1 failed, 2 skipped', status: 1 });
});

it('fails when the tests ended badly although their report has no failure', () => {
  expect(summary(clean, 1, 0)).toEqual({ last: '5 passed, 1 failed, 2 skipped', status: 1 });
});

it('fails without a report, also when both statuses are good', () => {
  expect(summary(undefined, 0, 0)).toEqual({ last: '0 passed, 0 failed', status: 1 });
});
