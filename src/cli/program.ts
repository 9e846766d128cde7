import { Command } from 'commander';
import { EXIT, type ExitKind } from '../base/errors.js';
import { packageVersion } from '../base/package-root.js';
import { addBench } from './bench/bench.js';
import { addDoctor } from './doctor/doctor.js';
import { examplesText } from './examples.js';
import { addData } from './data/data.js';
import { addCheckpoint } from './checkpoint/checkpoint.js';
import { addEval } from './run/eval.js';
import { addFinetune } from './run/finetune.js';
import { addGenerate } from './run/generate.js';
import { addGrid } from './run/grid.js';
import { addPlan } from './run/plan.js';
import { addPretrain } from './run/pretrain.js';
import { addResume } from './run/resume.js';
import { addDash } from './past-runs/dash.js';
import { addPlot, addReport } from './past-runs/pictures.js';
import { addRuns } from './past-runs/runs.js';
import { addCompletion } from './completion/completion.js';
import { addConfig } from './run/config-keys.js';
import { addLaunch } from './launch/launch.js';
import { addRecipes } from './run/recipes.js';
import { addShowConfig } from './run/show-config.js';
import { addSetup } from './setup/setup.js';
import { addTune } from './tune/tune.js';

const EXIT_WORDS: Record<keyof typeof EXIT, string> = {
  ok: 'done',
  internal: 'internal error',
  usage: 'usage: unknown command or flag',
  config: 'configuration: unknown recipe, key or value, impossible layout',
  environment: 'environment: memory, devices, libraries, ports, limits of the system',
  worker: 'a worker failed',
  hang: 'a collective hung',
  io: 'data, checkpoint or another file could not be read or written',
  diverged: 'the training diverged',
} satisfies Record<ExitKind | 'ok', string>;

function exitCodes(): string {
  const lines = Object.entries(EXIT).map(([kind, code]) => `  ${code}      ${EXIT_WORDS[kind as keyof typeof EXIT]}`);
  return ['', 'Exit codes:', ...lines, '  128+n  ended by signal n'].join('\n');
}

/** The command line with all its commands. These load what they need when they run, so that help is quick. */
export function makeProgram(): Command {
  const program = new Command('mbridge')
    .description('Train dense language models (Qwen3, Qwen2.5, Llama 3) across many GPUs from one command')
    .version(packageVersion())
    .showSuggestionAfterError()
    .addHelpText('after', exitCodes())
    // What commander would print is in the error it throws; report-error prints that.
    .configureOutput({ outputError: () => undefined })
    .exitOverride();
  for (const add of [
    ...[
      addPretrain,
      addResume,
      addRuns,
      addDash,
      addReport,
      addPlot,
      addFinetune,
      addEval,
      addGenerate,
      addLaunch,
      addRecipes,
      addPlan,
      addTune,
      addGrid,
      addShowConfig,
      addConfig,
    ],
    ...[addDoctor, addBench, addData, addCheckpoint, addSetup, addCompletion],
  ]) {
    add(program);
  }
  for (const outer of program.commands) {
    for (const command of [outer, ...outer.commands]) {
      command.copyInheritedSettings(program).helpOption('-h, --help', 'show this');
      const words = command === outer ? outer.name() : `${outer.name()} ${command.name()}`;
      const examples = examplesText(words);
      if (examples !== '') command.addHelpText('after', examples);
    }
  }
  return program;
}
