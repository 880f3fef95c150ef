import { DeepSpeedError } from '@deepspeed-ts/core';

/** A checkpoint could not be written or read. Those written before are untouched, and so is the engine. */
export class CheckpointError extends DeepSpeedError {
  constructor(
    code: CheckpointErrorCode,
    message: string,
    /** The file or directory that is to blame. */
    readonly path: string,
    options?: { cause?: unknown },
  ) {
    super(code, message, options);
  }
}

export type CheckpointErrorCode =
  | 'ERR_CHECKPOINT_ARGUMENT'
  | 'ERR_CHECKPOINT_WRITE'
  | 'ERR_CHECKPOINT_READ'
  | 'ERR_CHECKPOINT_CORRUPT'
  | 'ERR_CHECKPOINT_MISSING'
  | 'ERR_CHECKPOINT_MISMATCH'
  | 'ERR_CHECKPOINT_PEER';

const reasons: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full; free some space or save elsewhere',
  EDQUOT: 'the disk quota is used up; free some space or save elsewhere',
  EFBIG: 'the file is larger than the file system or `ulimit -f` allows',
  EROFS: 'the file system is read-only; save elsewhere',
  EACCES: 'permission denied; make the directory writable or save elsewhere',
  EPERM: 'permission denied; make the directory writable or save elsewhere',
  EEXIST: 'a part of the path is a file; save elsewhere',
  ENOTDIR: 'a part of the path is a file; save elsewhere',
};

/** What a failed file operation means to the one who asked for a checkpoint. */
export function writeError(path: string, cause: unknown): CheckpointError {
  if (cause instanceof CheckpointError) return cause;
  const { code = '', message } = cause as NodeJS.ErrnoException;
  const reason = reasons[code] ?? message;
  return new CheckpointError('ERR_CHECKPOINT_WRITE', `can't write ${path}: ${reason}. Checkpoints saved before are untouched`, path, {
    cause,
  });
}

/** What a failed read means to the one who loads a checkpoint: not damage, the file could not be looked at. */
export function readError(path: string, cause: unknown): CheckpointError {
  if (cause instanceof CheckpointError) return cause;
  const { code = '', message } = cause as NodeJS.ErrnoException;
  const reason = code === 'EACCES' || code === 'EPERM' ? 'permission denied; make the file readable' : message;
  return new CheckpointError('ERR_CHECKPOINT_READ', `can't read ${path}: ${reason}`, path, { cause });
}
