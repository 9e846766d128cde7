import { createServer, type AddressInfo } from 'node:net';
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

export const LAUNCH_SCRIPT = fileURLToPath(new URL('run-launch.mjs', import.meta.url));

/** What the launcher itself reads of a configuration. */
export const CONFIG = { dist: { timeout_s: 20 }, logger: { log_dir: null }, checkpoint: { save: null } };

/** What a run of two ranks leaves in its folder, beside the files of its numbers. */
export const FILES_OF_TWO_RANKS = [
  'rank-0',
  'rank-0/log.ndjson',
  'rank-1',
  'rank-1/log.ndjson',
  'resolved.yaml',
  'result.json',
  'run.json',
];

export function workerModule(name: string): string {
  return fileURLToPath(new URL(`workers/${name}.mjs`, import.meta.url));
}

/** A folder that is removed after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-test-'));
  onTestFinished(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  seconds: number;
}

/** A program that runs, and what it has said so far. */
export class Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Outcome>;
  stdout = '';
  stderr = '';

  constructor(command: readonly string[], env: Record<string, string | undefined> = {}) {
    const started = performance.now();
    const [program = '', ...argv] = command;
    this.child = spawn(program, argv, { env: { ...process.env, _: '', ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout?.on('data', (chunk: Buffer) => (this.stdout += chunk.toString()));
    this.child.stderr?.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.ended = new Promise((resolve) => {
      this.child.once('close', (code, signal) => {
        const seconds = (performance.now() - started) / 1000;
        resolve({ code, signal, stdout: this.stdout, stderr: this.stderr, seconds });
      });
    });
    onTestFinished(() => {
      this.child.kill('SIGKILL');
    });
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** Waits until stdout matches. */
  async says(pattern: RegExp, timeoutMs?: number): Promise<RegExpExecArray> {
    return waitFor(`${pattern} on stdout`, () => pattern.exec(this.stdout) ?? undefined, timeoutMs);
  }
}

/** Starts a launcher with workers of `test/launch/workers`; `job.env` is added to its environment. */
export function startLaunch(worker: string, job: Record<string, unknown>, test: Record<string, unknown> = {}): Running {
  const { train_iters = 3, env = {}, ...rest } = job;
  const config = {
    ...CONFIG,
    train: { train_iters },
    test,
  };
  const full = { runDir: join(temporaryFolder(), 'run'), workerModule: workerModule(worker), config, ...rest };
  return new Running([process.execPath, LAUNCH_SCRIPT, JSON.stringify(full)], env as Record<string, string>);
}

export async function waitFor<T>(what: string, probe: () => T | undefined, timeoutMs = 10_000): Promise<T> {
  const until = performance.now() + timeoutMs;
  for (;;) {
    const value = probe();
    if (value !== undefined) return value;
    if (performance.now() > until) throw new Error(`timed out waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Alive and no zombie: in a container nobody may reap orphans, and they still answer to signal 0. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

export function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((each) => parentOf(each) === pid);
}

function parentOf(pid: number): number | undefined {
  try {
    return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  } catch {
    return undefined;
  }
}

/** Lines of JSON. */
export function jsonLines(text: string): Record<string, unknown>[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
