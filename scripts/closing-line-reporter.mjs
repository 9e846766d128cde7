// A vitest reporter that ends the output with one line: `N passed, N failed`, and `, N skipped` where there are any.

function states(modules) {
  return modules.flatMap((module) => [...module.children.allTests()]).map((test) => test.result().state);
}

/** The closing line of a run. A file that could not be loaded, and an error outside of tests, count as failed. */
export function closingLine(modules, unhandledErrors) {
  const all = states(modules);
  const count = (state) => all.filter((s) => s === state).length;
  const broken = modules.filter((module) => module.state() === 'failed' && module.errors().length > 0).length;
  const skipped = count('skipped');
  const failed = count('failed') + count('pending') + broken + unhandledErrors.length;
  return `${count('passed')} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

export default class ClosingLineReporter {
  onTestRunEnd(modules, unhandledErrors) {
    process.stdout.write(`\n${closingLine(modules, unhandledErrors)}\n`);
  }
}
