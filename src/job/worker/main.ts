// The executable of a worker process under our launcher: `node dist/src/worker/main.js --rank N` (the argument is for ps).
import { runAsWorker } from './entry.js';

process.exit(await runAsWorker());
