import { EXIT, MbridgeError, type ExitKind } from '../../base/errors.js';
import { thrownByProgram } from '../../base/program-error.js';
import { faultSaid, systemError } from '../../base/system-error.js';
import { PEER_LOST, nowMs, type WorkerReport } from '../shared/worker-report.js';

/** What a code of the native addon (src/engine/binding.ts) means to the user. Others are bugs of ours. */
const NATIVE: Readonly<Record<string, { kind: ExitKind; code: string; hint?: string }>> = {
  MB_PEER: { kind: 'worker', code: PEER_LOST },
  MB_TIMEOUT: {
    kind: 'hang',
    code: 'MB_COLLECTIVE_TIMEOUT',
    hint: 'the ranks named are stuck or slow; dist.timeout_s sets how long a collective may take',
  },
  MB_MEMORY: { kind: 'environment', code: 'MB_MEMORY', hint: '`mbridge plan` shows what each rank needs' },
  MB_LIBRARY: { kind: 'environment', code: 'MB_LIBRARY', hint: '`mbridge doctor` shows what was found' },
  MB_DEVICE: { kind: 'environment', code: 'MB_DEVICE', hint: '`mbridge doctor` shows what was found' },
  MB_MISMATCH: { kind: 'internal', code: 'MB_COLLECTIVE_MISMATCH' },
  MB_UNSUPPORTED: { kind: 'config', code: 'MB_UNSUPPORTED' },
};

/** An error a user can act on, if `error` can be understood as one. */
function toMbridgeError(error: unknown): MbridgeError | undefined {
  if (error instanceof MbridgeError) return error;
  if (!(error instanceof Error)) return undefined;
  const { code } = error as NodeJS.ErrnoException;
  const said = faultSaid([error.message]);
  const native = code === undefined ? undefined : NATIVE[code];
  if (native !== undefined) {
    const { kind } = native;
    const hint = kind === 'environment' ? (said?.hint ?? native.hint) : native.hint;
    return new MbridgeError(kind, native.code, error.message, {
      cause: error,
      ...(hint === undefined ? {} : { hint }),
    });
  }
  // The C++ library names a limit in the message alone: a thread that could not be started, say.
  if (code === undefined && said !== undefined) {
    return new MbridgeError(said.kind, 'MB_SYSTEM', error.message, { hint: said.hint, cause: error });
  }
  return systemError(error);
}

/** The report of a failed rank. A bug, of ours or of the program, carries its stack; an error the user can act on does not. */
export function reportOf(error: unknown, rank: number, step: number): WorkerReport {
  const known = toMbridgeError(error);
  const time = { rank, time: new Date().toISOString(), time_ms: nowMs(), step };
  if (known === undefined || known.exitCode === EXIT.internal) {
    const bug = error instanceof Error ? error : new Error(String(error));
    return {
      ...time,
      code: known?.code ?? (thrownByProgram(bug) === undefined ? 'MB_INTERNAL' : 'MB_PROGRAM'),
      exit_code: EXIT.internal,
      message: bug.message,
      stack: bug.stack ?? bug.message,
    };
  }
  return {
    ...time,
    code: known.code,
    exit_code: known.exitCode,
    message: known.message,
    ...(known.hint === undefined ? {} : { hint: known.hint }),
    ...(Object.keys(known.details).length === 0 ? {} : { details: known.details }),
  };
}
