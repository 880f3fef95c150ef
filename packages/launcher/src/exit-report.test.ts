import { describe, expect, it } from 'vitest';
import { describeExit, describeFailure } from './exit-report.js';

describe('an end in words', () => {
  it('explains signals', () => {
    expect(describeExit({ code: null, signal: 'SIGKILL' })).toMatch(/^killed by SIGKILL: most likely out of memory/);
    expect(describeExit({ code: null, signal: 'SIGSEGV' })).toBe('killed by SIGSEGV: a crash in native code');
    expect(describeExit({ code: null, signal: 'SIGILL' })).toContain('DEEPSPEED_TS_CPU_ISA=baseline');
    expect(describeExit({ code: null, signal: 'SIGBUS' })).toContain('/dev/shm');
    expect(describeExit({ code: null, signal: 'SIGQUIT' })).toBe('killed by SIGQUIT');
  });

  it('explains the exit codes that stand for something', () => {
    expect(describeExit({ code: 3, signal: null })).toBe('exit code 3');
    expect(describeExit({ code: 13, signal: null })).toMatch(/^exit code 13: the script waits at its top level/);
    expect(describeExit({ code: 137, signal: null })).toMatch(/^exit code 137 \(128 \+ SIGKILL\): most likely out of memory/);
  });

  it('tells a full JavaScript heap from other aborts', () => {
    const fatalError = 'FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory';
    expect(describeExit({ code: null, signal: 'SIGABRT', fatalError })).toContain('--max-old-space-size');
  });
});

it('names the first failure, its last words and what became of the others', () => {
  const failure = {
    rank: 1,
    pid: 77,
    code: 3,
    signal: null,
    afterMs: 1234,
    stderrTail: ['Error: boom', '    at here'],
    fatalError: undefined,
  };
  const ranks = [
    { rank: 0, pid: 76, code: null, signal: 'SIGTERM' as const },
    { rank: 1, pid: 77, code: 3, signal: null },
    { rank: 2, pid: 78, code: 0, signal: null },
  ];
  expect(describeFailure({ exitCode: 3, failure, stoppedBy: null, ranks })).toBe(
    [
      'deepspeed: rank 1 (pid 77) failed first, 1.2 s after the start: exit code 3.',
      'Its last lines on stderr:',
      '  | Error: boom',
      '  |     at here',
      'The others: rank 0 stopped (SIGTERM), rank 2 done (0).',
    ].join('\n'),
  );
});
