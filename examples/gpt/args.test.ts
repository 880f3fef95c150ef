import { describe, expect, it } from 'vitest';
import { ArgumentError, parseArguments, usage } from './args.js';

const problemsOf = (...argv: string[]): readonly string[] => {
  try {
    parseArguments(argv);
  } catch (error) {
    expect(error).toBeInstanceOf(ArgumentError);
    return (error as ArgumentError).problems;
  }
  return [];
};

describe('the command line', () => {
  it('has a default for everything but the data', () => {
    const args = parseArguments(['--data', 'book.txt']);
    expect(args).toMatchObject({ data: 'book.txt', layers: 4, dim: 128, steps: 2000, lr: 1e-3, tokens: 'chars', json: false });
    expect(args).toMatchObject({ 'min-lr': 1e-4, warmup: 100, deepspeed: undefined, out: undefined });
    expect([...args.given]).toEqual(['data']);
    expect(problemsOf()).toEqual(['--data: missing; expected the path of a text file']);
  });

  it('takes a value after a space or an equals sign', () => {
    const args = parseArguments(['--data=a=b.txt', '--steps', '40', '--lr=1e-2', '--json']);
    expect(args).toMatchObject({ data: 'a=b.txt', steps: 40, lr: 1e-2, 'min-lr': 1e-3, warmup: 2, json: true });
  });

  it('refuses an unknown flag with the nearest one, and does not take its value for another mistake', () => {
    expect(problemsOf('--data', 'x', '--stpes', '40')).toEqual(['--stpes: there is no such flag; did you mean --steps?']);
    expect(problemsOf('--data', 'x', '--weight_decay', '0')).toEqual([
      '--weight_decay: there is no such flag; did you mean --weight-decay?',
    ]);
    expect(problemsOf('--data', 'x', '--quux')).toEqual(['--quux: there is no such flag; --help lists them']);
  });

  it('names every problem at once', () => {
    expect(problemsOf('--layers', '0', '--dropout', '1', '--lr', 'fast', '--tokens', 'words', 'book.txt', '--heads')).toEqual([
      '--layers: expected an integer >= 1, got "0"',
      '--dropout: expected a number >= 0 and < 1, got "1"',
      '--lr: expected a number >= 0, got "fast"',
      '--tokens: expected "chars" or "bytes", got "words"',
      'book.txt: expected a flag, such as --data FILE',
      '--heads: expected an integer >= 1, got nothing',
      '--data: missing; expected the path of a text file',
    ]);
  });

  it('refuses values that do not fit together, and a flag given twice', () => {
    expect(problemsOf('--data', 'x', '--dim', '100', '--heads', '3')).toEqual(['--dim: expected a multiple of the heads, 3, got 100']);
    expect(problemsOf('--data', 'x', '--min-lr', '1')).toEqual(['--min-lr: expected at most the learning rate, 0.001, got 1']);
    expect(problemsOf('--data', 'x', '--data', 'y')).toEqual(['--data is given twice']);
  });

  it('explains every flag', () => {
    for (const flag of ['--data FILE', '--val-fraction F', '--tokens chars|bytes', '--deepspeed CONFIG', '--json'])
      expect(usage()).toContain(flag);
  });
});
