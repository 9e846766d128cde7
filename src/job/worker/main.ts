// The executable of a worker process under our launcher: `node dist/src/job/worker/main.js --rank N` (the argument is for ps).
import { takeEarlySignals } from '../../base/early-signals.js';

takeEarlySignals(); // before the engine and all else is loaded
const { runAsWorker } = await import('./entry.js');
process.exit(await runAsWorker());
