import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

/** Flags of node that concern the launcher's own process; each rank repeating them would clash (inspector port) or run something else. */
const NOT_INHERITED = /^(-[epc]+|--(eval|print|check|input-type|inspect.*|test.*|watch.*|run|interactive))$/;
const TAKES_VALUE = /^(-[ep]+|--(eval|print|input-type|inspect-port|test-.*|watch-path|run))$/;

/** The launcher's own node flags that its ranks share: `--conditions`, `--import`, memory limits, and so on. */
export function inheritedNodeFlags(execArgv: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < execArgv.length; i++) {
    const word = execArgv[i]!;
    const name = word.split('=', 1)[0]!;
    if (!NOT_INHERITED.test(name)) kept.push(word);
    else if (TAKES_VALUE.test(word) && !execArgv[i + 1]?.startsWith('-')) i++;
  }
  return kept;
}

/** `--import <tsx>` with the launcher's own copy of tsx, so that a script needs none beside it. */
export function tsxFlags(): string[] {
  const tsx = createRequire(import.meta.url).resolve('tsx');
  return ['--import', pathToFileURL(tsx).href];
}

/** Arguments of `node` for one rank. */
export function rankArguments(options: {
  script: string;
  args: readonly string[];
  nodeFlags: readonly string[];
  /** Appended as `--local_rank=N` when given. */
  localRank: number | undefined;
}): string[] {
  const typescript = /\.[cm]?tsx?$/.test(options.script);
  return [
    ...options.nodeFlags,
    ...(typescript ? tsxFlags() : []),
    options.script,
    ...options.args,
    ...(options.localRank === undefined ? [] : [`--local_rank=${options.localRank}`]),
  ];
}
