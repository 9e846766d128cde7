// A worker as torchrun would start it: the ranks come from the environment, the run from the JSON argument.
import { runAsWorker } from '../../../dist/src/job/worker/entry.js';

process.exit(await runAsWorker({ name: 'test', device: 'cpu', argv: process.argv, ...JSON.parse(process.argv[2]) }));
