/** What kept a launch from starting, or from staying guarded. `code` is for programs, `message` for people. */
export type LaunchErrorCode =
  | 'BAD_ARGUMENTS'
  | 'UNSUPPORTED_PLATFORM'
  | 'SCRIPT_NOT_FOUND'
  | 'PORT_IN_USE'
  | 'BAD_ADDRESS'
  | 'LOG_DIRECTORY'
  | 'SPAWN_FAILED'
  | 'REAPER_LOST';

/** A launch that could not start (nothing is left running), or whose reaper was lost (every rank has been killed). */
export class LaunchError extends Error {
  override readonly name = 'LaunchError';

  constructor(
    readonly code: LaunchErrorCode,
    message: string,
  ) {
    super(message);
  }
}
