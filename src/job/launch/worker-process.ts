import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { LineSplitter } from '../../base/line-splitter.js';
import { ENV } from '../shared/messages.js';
import type {
  LauncherMessage,
  SavedCheckpoint,
  StopSignal,
  WorkerEvent,
  WorkerMessage,
  WorkerRun,
} from '../shared/messages.js';
import type { WorkerExit } from '../shared/worker-exit.js';
import { FlightMemory } from './flight-memory.js';
import type { FlightRecord } from '../shared/flight-record.js';
import { nowMs, readWorkerReport, removeWorkerReport, type WorkerReport } from '../shared/worker-report.js';
import type { RankProcess } from './process-plan.js';

/** What a worker sends while it lives. */
export interface WorkerListener {
  event(rank: number, event: WorkerEvent): void;
  log(rank: number, line: string): void;
  output(rank: number, line: string): void;
  saved(checkpoint: SavedCheckpoint): void;
  /** Memory to be kept beyond its end: a descriptor of its process. */
  memory?(rank: number, pid: number, descriptor: number): void;
  /** Its copy of an update is whole. */
  copied?(rank: number, step: number): void;
  /** Last step that the rank has begun. */
  step(rank: number): number;
  /** It has failed; its exit follows, unless that hangs. */
  failed(rank: number): void;
  /** Its work is done; its exit follows, unless that hangs. */
  done(rank: number): void;
}

/** Of the record of its collectives, in the worker: after stdin, stdout, stderr and the channel. */
const FLIGHT_FILE = 4;
const TAIL_LINES = 20;
/** How long output may stay open after the process has ended: something that left its process group may hold it. */
const OUTPUT_GRACE_MS = 1_000;

/** One worker in a process group (and session) of its own, so that it can be ended with all that it started. */
export class WorkerProcess {
  readonly rank: number;
  readonly exited: Promise<WorkerExit>;
  readonly #child: ChildProcess;
  readonly #flight = FlightMemory.open();
  readonly #tail: string[] = [];
  #report: WorkerReport | undefined;
  #done = false;
  #stopped: 'no' | StopSignal = 'no';
  #ended = false;
  #running = true;
  #looping = false;

  constructor(plan: RankProcess, extraEnv: Record<string, string>, runDir: string, listener: WorkerListener) {
    this.rank = plan.rank;
    removeWorkerReport(runDir, plan.rank); // else the end of a rank that is killed would be explained by it
    const [program = process.execPath, ...argv] = plan.command;
    this.#child = spawn(program, argv, {
      env: { ...process.env, ...plan.env, ...extraEnv, [ENV.flight]: this.#flight === null ? '' : String(FLIGHT_FILE) },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc', ...(this.#flight === null ? [] : [this.#flight.file])],
      serialization: 'advanced', // a loss may be NaN
    });
    this.#child.on('message', (message: WorkerMessage) => {
      this.#receive(message, listener);
    });
    const closeOutputs = [
      this.#capture(this.#child.stdout, plan.files.stdout, (line) => {
        listener.output(this.rank, line);
      }),
      this.#capture(this.#child.stderr, plan.files.stderr, (line) => {
        this.#tail.push(line);
        if (this.#tail.length > TAIL_LINES) this.#tail.shift();
        listener.output(this.rank, line);
      }),
    ];
    this.exited = this.#waitForEnd(runDir, listener).finally(() => {
      for (const close of closeOutputs) close();
    });
  }

  get running(): boolean {
    return this.#running;
  }

  /** Its last collectives, as of now, also where it has ended; undefined where it has not recorded. */
  flight(): FlightRecord | undefined {
    return this.#flight?.read(this.rank);
  }

  /** What it recorded is not needed any more. */
  forget(): void {
    this.#flight?.close();
  }

  /** Whether it has something to finish when it is asked to stop. */
  get looping(): boolean {
    return this.#looping;
  }

  /** Tells it what to run; first of all. */
  give(run: WorkerRun): void {
    if (!this.#child.connected) return; // it could not be started
    const message: LauncherMessage = { kind: 'run', run: JSON.stringify(run) };
    this.#child.send(message, () => undefined); // one that has ended already says why
  }

  /** Asks it to stop after its current step. */
  ask(signal: StopSignal): void {
    this.#tell({ kind: 'stop', signal });
  }

  /** Tells it that all ranks have whole copies of an update. */
  copied(step: number): void {
    this.#tell({ kind: 'copied', step });
  }

  #tell(message: LauncherMessage): void {
    if (!this.#child.connected) return;
    this.#child.send(message, () => undefined); // one that has just ended need not be told
  }

  /** Ends the whole process group. From now on its end says nothing about what went wrong. */
  end(signal: 'SIGTERM' | 'SIGKILL'): void {
    if (!this.#running) return;
    this.#ended = true;
    this.#signalGroup(signal);
  }

  #signalGroup(signal: 'SIGTERM' | 'SIGKILL'): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // no process of the group is left
    }
  }

  #receive(message: WorkerMessage, listener: WorkerListener): void {
    switch (message.kind) {
      case 'event':
        listener.event(this.rank, message.event);
        return;
      case 'log':
        listener.log(this.rank, message.line);
        return;
      case 'looping':
        this.#looping = true;
        return;
      case 'saved':
        listener.saved(message.saved);
        return;
      case 'memory':
        listener.memory?.(this.rank, this.#child.pid ?? 0, message.fd);
        return;
      case 'copied':
        listener.copied?.(this.rank, message.step);
        return;
      case 'failed':
        this.#report = message.report;
        listener.failed(this.rank);
        return;
      case 'done':
        this.#done = true;
        if (!this.#ended) this.#stopped = message.stopped; // else it was our own signal
        listener.done(this.rank);
        // Its exit may have to wait for native calls, which wait for other ranks.
        if (message.atOnce) this.end('SIGKILL');
    }
  }

  /** Writes a stream's whole lines to a file, which is made with the first. Returns what ends it. */
  #capture(stream: NodeJS.ReadableStream | null, file: string, onLine: (line: string) => void): () => void {
    let descriptor: number | undefined; // of the file, while it is open
    let writable = true;
    const lines = new LineSplitter((line) => {
      onLine(line);
      if (!writable) return;
      try {
        descriptor ??= openSync(file, 'a');
        writeSync(descriptor, `${line}\n`);
      } catch {
        writable = false; // a full disk must not end a run that could go on
      }
    });
    stream?.on('data', (chunk: Buffer) => {
      lines.push(chunk);
    });
    return () => {
      lines.end();
      if (descriptor !== undefined) closeSync(descriptor);
    };
  }

  async #waitForEnd(runDir: string, listener: WorkerListener): Promise<WorkerExit> {
    const child = this.#child;
    const closed = new Promise<void>((resolve) => child.once('close', resolve));
    const end = await new Promise<{ code: number | null; signal: NodeJS.Signals | null; spawnError?: Error }>(
      (resolve) => {
        child.once('exit', (code, signal) => {
          resolve({ code, signal });
        });
        child.once('error', (error) => {
          if (child.pid === undefined) resolve({ code: null, signal: null, spawnError: error });
        });
      },
    );
    const timeMs = nowMs();
    this.#signalGroup('SIGKILL'); // what the worker left behind
    this.#running = false;
    if (end.spawnError === undefined) await settleWithin(closed, OUTPUT_GRACE_MS);
    child.stdout?.destroy();
    child.stderr?.destroy();
    if (child.connected) child.disconnect();
    const report = this.#report ?? readWorkerReport(runDir, this.rank); // a full disk loses the file
    return {
      rank: this.rank,
      timeMs,
      ...end,
      done: this.#done,
      stopped: this.#stopped,
      ended: this.#ended,
      step: report?.step ?? listener.step(this.rank),
      ...(report === undefined ? {} : { report }),
      stderrTail: this.#tail,
    };
  }
}

async function settleWithin(promise: Promise<void>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  await Promise.race([promise, new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)))]);
  clearTimeout(timer);
}
