import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serveDash } from '../../src/trace/dash-server.js';
import { RunWatch } from '../../src/trace/run-watch.js';
import { mbridge } from '../cli/mbridge.js';
import { HAS_BROWSER, openBrowser, openPage, pixelsOf } from './browser.js';
import { UPDATES, append, copyRun, realRun, stepLine } from './run-folders.js';

const { folder, runs } = realRun();

/** Ends a script, a tag, an attribute and a text; what runs sets `document.title` to HACKED. */
const HOSTILE = `</script><script>document.title='HACKED'</script><img src=x onerror="document.title='HACKED'">"'<!--`;
const BLUE = '2f6fde';
const ORANGE = 'e0631b';

/** A run whose name, texts, error and configuration were written by somebody who means harm. */
function hostileRun(): string {
  const run = copyRun(runs, '<img src=x onerror="document.title=`HACKED`">');
  const record = JSON.parse(readFileSync(join(run, 'run.json'), 'utf8')) as { config: object; argv: string[] };
  const config = { ...record.config, [HOSTILE]: { [HOSTILE]: HOSTILE } };
  writeFileSync(
    join(run, 'run.json'),
    JSON.stringify({ ...record, config, sessions: [{ started: HOSTILE, argv: [HOSTILE, HOSTILE, HOSTILE] }] }),
  );
  const error = { rank: HOSTILE, step: 3, code: HOSTILE, message: HOSTILE, hint: HOSTILE };
  writeFileSync(join(run, 'result.json'), JSON.stringify({ type: 'result', ok: false, error }));
  append(run, 'samples.ndjson', `${JSON.stringify({ type: 'sample', step: 5, prompt: HOSTILE, text: HOSTILE })}\n`);
  append(
    run,
    'metrics.ndjson',
    `${JSON.stringify({ type: 'loss_warning', step: 6, kind: 'spike', loss: 9, usual: 4 })}\n`,
  );
  append(
    run,
    'metrics.ndjson',
    `${JSON.stringify({ type: 'step', step: UPDATES + 1, loss: HOSTILE, lr: { [HOSTILE]: 1 } })}\n`,
  );
  append(run, 'metrics.ndjson', `${JSON.stringify({ type: 'evaluation', step: UPDATES, set: HOSTILE, loss: 4 })}\n`);
  return run;
}

describe.skipIf(!HAS_BROWSER)('in a browser (skipped where /usr/bin/chromium is not there)', () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await openBrowser();
  });
  afterAll(() => browser.close());

  test('the page of a run has its curves, and follows it', { timeout: 60_000 }, async () => {
    const growing = copyRun(runs, 'growing');
    const dash = await serveDash({
      watch: new RunWatch([{ folder: runs, holds: 'runs' }]),
      ...{ host: '127.0.0.1', port: 0 },
    });
    const { page, problems } = await openPage(browser, dash.url);
    await page.getByText(`${UPDATES}/${UPDATES}`).nth(1).waitFor();
    expect(await page.locator('.chart:visible').count()).toBeGreaterThanOrEqual(6);
    expect(await page.locator('.chart-mfu').isVisible()).toBe(false);
    // Two runs with the same losses: the one that is drawn last covers the other.
    expect(await pixelsOf(page, '.chart-loss canvas', ORANGE)).toBeGreaterThan(100);
    expect(await pixelsOf(page, '.heat canvas >> nth=0', 'dfe7f5')).toBeGreaterThan(0);

    await page.getByRole('checkbox', { name: 'growing' }).uncheck();
    await page.waitForFunction("document.querySelectorAll('.chart-loss .readout b').length === 1");
    expect(await pixelsOf(page, '.chart-loss canvas', BLUE)).toBeGreaterThan(100);
    expect(await pixelsOf(page, '.chart-loss canvas', ORANGE)).toBe(0);
    await page.getByRole('checkbox', { name: 'growing' }).check();

    const readout = page.locator('.chart-loss .readout b').nth(1);
    await page.locator('#smoothing').fill('0');
    append(growing, 'metrics.ndjson', stepLine(40, 0.125).slice(0, 20));
    append(growing, 'metrics.ndjson', stepLine(40, 0.125).slice(20));
    await page.getByText(`40/${UPDATES} · loss 0.1250`).waitFor();
    await expect.poll(() => readout.textContent()).toBe('0.1250');
    await page.locator('#axis').selectOption('tokens');
    await page.locator('#log').check();
    const plot = page.locator('.chart-loss .plot');
    await plot.focus();
    for (let i = 0; i < 3; i++) await page.keyboard.press('ArrowLeft');
    await expect.poll(() => page.locator('.chart-loss .where').textContent()).toMatch(/^tokens [\d.]+/);
    await page.keyboard.press('Escape');
    expect(await plot.getAttribute('aria-label')).toMatch(/^Loss: real [\d.]+ to [\d.]+; growing [\d.]+ to 0\.1250\./);

    copyRun(runs, 'later');
    await page.getByRole('checkbox', { name: 'later' }).waitFor();
    await dash.close();
    await page.locator('#connection.lost').waitFor();
    // The lost connection itself is told on the console.
    expect(problems.filter((problem) => !/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED/.test(problem))).toEqual([]);
    await page.close();
  });

  test('text of a run is text, in a report and live', { timeout: 60_000 }, async () => {
    const run = hostileRun();
    const report = join(folder, 'hostile.html');
    expect(await mbridge(['report', run, '-o', report])).toMatchObject({ exitCode: 0 });
    const dash = await serveDash({ watch: new RunWatch([{ folder: run, holds: 'run' }]), host: '127.0.0.1', port: 0 });
    for (const url of [pathToFileURL(report).href, dash.url]) {
      const { page, problems } = await openPage(browser, url);
      await page.locator('.sample p').waitFor();
      for (const summary of await page.locator('summary').all()) await summary.click();
      expect(await page.locator('.sample p').textContent()).toBe(HOSTILE + HOSTILE);
      expect(await page.locator('.failure strong').textContent()).toBe(`update 3: ${HOSTILE}`);
      expect(await page.locator('#config').textContent()).toContain(`${HOSTILE}.${HOSTILE}`);
      expect(await page.locator('#environment').textContent()).toContain(HOSTILE);
      expect(await page.locator('#warnings').textContent()).toContain('the loss jumped: 9.0000, usual is 4.0000');
      expect(await page.locator('.chart-validation canvas').isVisible()).toBe(true);
      expect(await page.title()).not.toBe('HACKED');
      expect(await page.locator('img').count()).toBe(0);
      expect(problems).toEqual([]);
      await page.close();
    }
    await dash.close();
  });
});

describe('a report', () => {
  test('is left in the folder of a run that has ended', () => {
    const page = readFileSync(join(runs, 'real', 'report.html'), 'utf8');
    expect(page).toMatch(/^<!doctype html>/);
    expect(page.length).toBeLessThan(300_000);
    const [, json = ''] = /<script type="application\/json" id="report">([^<]*)<\/script>/.exec(page) ?? [];
    expect(JSON.parse(json)).toMatchObject([
      { view: { name: 'run', state: 'done', updates: UPDATES }, thinnedFrom: null },
    ]);
    expect(page).toContain('Permission is hereby granted, free of charge');
  });

  test('of a run without an update is refused', async () => {
    const run = copyRun(runs, 'empty');
    writeFileSync(join(run, 'metrics.ndjson'), '');
    const { exitCode, stderr } = await mbridge(['report', run, '-o', join(folder, 'none.html')]);
    expect([exitCode, stderr]).toEqual([7, expect.stringContaining('tells of no update')]);
  });
});

describe('a picture', () => {
  test('has the curves of all runs, and hostile names as text', async () => {
    const other = hostileRun();
    const file = join(folder, 'loss.svg');
    const args = ['plot', join(runs, 'real'), other, '-o', file, '--metric', 'loss,val,norm', '--log', '--x', 'tokens'];
    expect(await mbridge(args)).toMatchObject({ exitCode: 0, stdout: file });
    const svg = readFileSync(file, 'utf8');
    expect(svg.match(/<path d="M[\d.]+ [\d.]+(L[\d.]+ [\d.]+){5,}"/g)).toHaveLength(4);
    expect(svg).toContain('&lt;img src=x onerror=&quot;');
    expect(svg).not.toContain('<img');
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });

  test.each([
    [['--metric', 'mfu'], 7, 'MB_NOTHING_TO_PLOT'],
    [['--metric', 'los'], 2, 'Expected some of loss, validation'],
  ])('with %j is refused', async (args, code, text) => {
    const { exitCode, stderr } = await mbridge(['plot', join(runs, 'real'), '-o', join(folder, 'no.svg'), ...args]);
    expect(exitCode).toBe(code);
    expect(stderr).toContain(text);
  });
});
