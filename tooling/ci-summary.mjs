// Usage: node tooling/ci-summary.mjs <vitest json report> <status of the tests> <status of the checks>
// Prints the closing line of .ci/run and exits 1 when anything failed, also when the report is missing or says less than the status.
import { readFileSync } from 'node:fs';

const [report, testStatus, checkStatus] = process.argv.slice(2);
const counts = { passed: 0, failed: 0, skipped: 0 };
try {
  const result = JSON.parse(readFileSync(report, 'utf8'));
  counts.passed = result.numPassedTests;
  counts.skipped = result.numPendingTests + result.numTodoTests;
  // A file that fails to load has no tests to count.
  const brokenFiles = result.testResults.filter((file) => file.status === 'failed' && file.assertionResults.length === 0).length;
  counts.failed = result.numFailedTests + brokenFiles;
} catch (error) {
  console.error(`No test report: ${error.message}`);
}
if (testStatus !== '0' && counts.failed === 0) counts.failed = 1;
if (checkStatus !== '0') counts.failed += 1;

console.log(`${counts.passed} passed, ${counts.failed} failed${counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''}`);
process.exit(counts.failed === 0 && counts.passed > 0 ? 0 : 1);
