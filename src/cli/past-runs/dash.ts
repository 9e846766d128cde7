import { existsSync } from 'node:fs';
import { InvalidArgumentError, type Command } from 'commander';
import { isLoopback } from '../../base/http-requests.js';
import { outputLine } from '../../outputs/line.js';

const EXAMPLES = `
Examples:
  mbridge dash                              the runs of runs/, and each that starts there
  mbridge dash runs/20261128-120000-qwen3-tiny ../other/runs
  ssh -L 8080:127.0.0.1:8080 node mbridge dash --port 8080`;

/** `mbridge dash`: the curves of runs as a page in a browser. */
export function addDash(program: Command): void {
  program
    .command('dash')
    .description('show runs in a browser, as they go on')
    .argument('[runs...]', 'folders of runs, or of a run, or names of runs in runs/; runs/ where none is given')
    .option('--port <n>', 'port to listen on; a free one where none is given', parsePort, 0)
    .option(
      '--host <address>',
      'address to listen on; others than 127.0.0.1 can be reached from other machines',
      '127.0.0.1',
    )
    .option('--json', 'as JSON')
    .addHelpText('after', EXAMPLES)
    .action(async (runs: string[], { port, host, json }: { port: number; host: string; json?: boolean }) => {
      const { serveDash } = await import('../../trace/dash-server.js');
      const { RunWatch } = await import('../../trace/run-watch.js');
      const { listenForSignals } = await import('../../job/shared/stop-signals.js');
      const { RUNS_FOLDER } = await import('../../job/shared/run-folder.js');
      const { findRun, readRun } = await import('../../job/shared/run-list.js');
      const sources = (runs.length === 0 ? [RUNS_FOLDER] : runs).map((named) => {
        const holdsRuns = named === RUNS_FOLDER || (existsSync(named) && readRun(named) === undefined);
        return holdsRuns
          ? ({ folder: named, holds: 'runs' } as const)
          : ({ folder: findRun(named).folder, holds: 'run' } as const);
      });
      const dash = await serveDash({ watch: new RunWatch(sources), host, port });
      if (!isLoopback(host)) {
        process.stderr.write(
          `warning: whoever has the address below and reaches ${host} sees these runs; it is sent unencrypted\n`,
        );
      }
      process.stdout.write(json ? outputLine('dash', { url: dash.url }) : `${dash.url}\n`);
      process.stderr.write('Ctrl-C ends it\n');
      await new Promise<void>((resolve) => {
        const unlisten = listenForSignals(() => {
          unlisten();
          resolve();
        });
      });
      await dash.close();
    });
}

function parsePort(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= 65_535) return value;
  throw new InvalidArgumentError('Expected a port, 0 to 65535.');
}
