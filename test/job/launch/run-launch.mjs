// Runs one job, given as JSON, as a command of its own: `node run-launch.mjs JOB`. The last line of stderr is the result.
import { launch } from '../../../dist/src/job/launch/launch.js';

const job = JSON.parse(process.argv[2]);
const result = await launch({ name: 'test', device: 'cpu', argv: process.argv, ...job });
process.stderr.write(`exit code ${result.exitCode}\n`);
process.exitCode = result.exitCode;
