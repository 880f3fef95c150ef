import { describe, expect, it } from 'vitest';
import { inheritedNodeFlags, rankArguments } from './rank-command.js';

describe('flags of node that ranks inherit', () => {
  it('keeps conditions, imports and limits', () => {
    const flags = ['--conditions=@deepspeed-ts/source', '-C', 'dev', '--import', 'tsx', '--max-old-space-size=4096'];
    expect(inheritedNodeFlags(flags)).toEqual(flags);
  });

  it('drops those of debugging, evaluating, testing and watching, with their values', () => {
    const flags = [
      '--inspect-brk=9229',
      '-e',
      'code()',
      '--input-type=module',
      '--watch',
      '--watch-path',
      'src',
      '--test',
      '--eval=1',
      '--expose-gc',
    ];
    expect(inheritedNodeFlags(flags)).toEqual(['--expose-gc']);
  });
});

describe('the command of a rank', () => {
  const base = { args: ['a b'], nodeFlags: ['--expose-gc'], localRank: undefined };

  it('runs JavaScript by plain node', () => {
    expect(rankArguments({ ...base, script: '/x/train.js' })).toEqual(['--expose-gc', '/x/train.js', 'a b']);
  });

  it.each(['ts', 'mts', 'cts', 'tsx'])('runs .%s through tsx', (extension) => {
    const [first, second, third] = rankArguments({ ...base, script: `/x/train.${extension}` });
    expect([first, second]).toEqual(['--expose-gc', '--import']);
    expect(third).toMatch(/^file:.*\/tsx\//);
  });

  it("appends --local_rank after the script's arguments", () => {
    expect(rankArguments({ ...base, script: '/x/train.js', localRank: 3 }).at(-1)).toBe('--local_rank=3');
  });
});
