import { existsSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { ConfigError, type ConfigPath } from '@deepspeed-ts/core';
import { parseHjson } from './hjson.js';

/** A config before validation, and where its parts stand when it came from text. */
export interface ConfigSource {
  readonly raw: unknown;
  readonly locate?: (path: ConfigPath) => string | undefined;
}

/**
 * Reads what DeepSpeed takes as a config: an object, the path of a JSON or HJSON file, or JSON in base64 (as launchers pass it along).
 *
 * @throws ConfigError when the file can't be read or parsed, with file, line and column.
 */
export function readConfig(config: string | object): ConfigSource {
  if (typeof config !== 'string') return { raw: config };
  const inline = existsSync(config) ? undefined : fromBase64(config);
  if (inline !== undefined) return parsed(inline, 'base64 config');
  return parsed(readText(config), basename(config));
}

function parsed(text: string, name: string): ConfigSource {
  if (text.trim() === '') throw new ConfigError([`${name}: the file is empty; expected a JSON or HJSON object`]);
  const { value, locate } = parseHjson(text, name);
  return {
    raw: value,
    locate: (path) => {
      const position = locate(path);
      return position && `${name}:${position.line}:${position.column}`;
    },
  };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'no such file' : code === 'EISDIR' ? 'it is a directory' : message;
    const help = `expected a path to a JSON or HJSON file (looked in ${process.cwd()}), an object, or JSON in base64`;
    throw new ConfigError([`config "${path.length > 120 ? `${path.slice(0, 117)}...` : path}": ${reason}; ${help}`]);
  }
}

/** The text, if the string is an object in (URL-safe or plain) base64. */
function fromBase64(config: string): string | undefined {
  if (!/^[A-Za-z0-9+/_-]{4,}={0,2}$/.test(config)) return undefined;
  const text = Buffer.from(config, 'base64').toString('utf8');
  return text.trimStart().startsWith('{') && !text.includes('\uFFFD') ? text : undefined;
}
