import { mkdirSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { serveDash, type Dash } from '../../src/trace/dash-server.js';
import { RunWatch } from '../../src/trace/run-watch.js';
import type { RunItem, RunView, TraceLines } from '../../src/trace/view/run-view.js';
import { BIN, mbridge } from '../cli/mbridge.js';
import { Running, temporaryFolder } from '../job/launch/processes.js';
import { UPDATES, append, copyRun, realRun, stepLine } from './run-folders.js';

const { runs } = realRun();
let dash: Dash;
beforeAll(async () => {
  dash = await serveDash({ watch: new RunWatch([{ folder: runs, holds: 'runs' }]), host: '127.0.0.1', port: 0 });
});
afterAll(() => dash.close());

interface Answer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly text: string;
}

/** As it stands: no client of ours tidies the path up. `~` is the server's own address. */
function ask(path: string, { method = 'GET', host = '' } = {}): Promise<Answer> {
  const { hostname, port, pathname } = new URL(dash.url);
  return new Promise((resolve, reject) => {
    const headers = host === '' ? {} : { Host: host };
    const asked = request({ hostname, port, path: path.replace('~', pathname), method, headers }, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => (text += chunk.toString()));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
    });
    asked.on('error', reject).end();
  });
}

/** What a page hears. */
class Heard {
  readonly items: RunItem[][] = [];
  readonly views: RunView[] = [];
  readonly lines: TraceLines[] = [];
  readonly #closed = new AbortController();
  #changed: () => void = () => undefined;

  static async open(query = ''): Promise<Heard> {
    const heard = new Heard();
    const response = await fetch(`${dash.url}events${query}`, { signal: heard.#closed.signal });
    expect(response.headers.get('content-type')).toMatch('text/event-stream');
    void heard.#read(response).catch(() => undefined);
    return heard;
  }

  async #read({ body }: Response): Promise<void> {
    let rest = '';
    for await (const chunk of body!.pipeThrough(new TextDecoderStream())) {
      const messages = (rest + chunk).split('\n\n');
      rest = messages.pop() ?? '';
      for (const message of messages) {
        const [, name, data = ''] = /^event: (.*)\ndata: (.*)$/.exec(message) ?? [];
        if (name === 'runs') this.items.push(JSON.parse(data) as RunItem[]);
        if (name === 'run') this.views.push(JSON.parse(data) as RunView);
        if (name === 'lines') this.lines.push(JSON.parse(data) as TraceLines);
      }
      this.#changed();
    }
  }

  async until(what: string, is: () => boolean): Promise<void> {
    const limit = AbortSignal.timeout(10_000);
    while (!is()) {
      if (limit.aborted) throw new Error(`not heard in 10 s: ${what}`);
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
        setTimeout(resolve, 100);
      });
    }
  }

  /** Updates of a run by its name, as a page knows them. */
  steps(name: string): number[] {
    const id = this.views.find((view) => view.name === name)?.id;
    const steps: number[] = [];
    for (const { events, reset } of this.lines.filter((each) => each.id === id && each.file === 'metrics')) {
      if (reset) steps.length = 0;
      steps.push(...events.map(({ step }) => step));
    }
    return steps;
  }

  close(): void {
    this.#closed.abort();
  }
}

describe('the server', () => {
  test.each([
    ['~', 'text/html', '<title>mbridge</title>'],
    ['~page.js', 'text/javascript', 'uPlot\nThe MIT License (MIT)\n\nCopyright (c)'],
    ['~page.css', 'text/css', '.uplot'],
  ])('has %s', async (path, type, text) => {
    const { status, headers, text: body } = await ask(path);
    expect([status, headers['content-type']]).toEqual([200, `${type}; charset=utf-8`]);
    expect(body.includes(text), body.slice(0, 200)).toBe(true);
    expect(headers['content-security-policy']).toMatch(/^default-src 'none'; script-src 'self';/);
    expect(await ask(path, { method: 'HEAD' })).toMatchObject({ status: 200, text: '' });
  });

  test.each([
    ['/', {}, 404],
    ['/page.js', {}, 404],
    ['/events', {}, 404],
    ['/00000000000000000000000000000000/', {}, 404],
    ['~../../etc/passwd', {}, 404],
    ['~..%2f..%2fetc%2fpasswd', {}, 404],
    ['~runs/real/run.json', {}, 404],
    ['~page.js/../../../../package.json', {}, 404],
    ['//', {}, 400],
    ['~', { method: 'POST' }, 405],
    ['~', { method: 'DELETE' }, 405],
    ['~events', { method: 'PUT' }, 405],
    ['~', { host: 'evil.example' }, 421],
    ['~events', { host: 'evil.example:80' }, 421],
    ['~', { host: '127.0.0.1.evil.example' }, 421],
    ['~', { host: 'localhost:8080' }, 200],
    ['~', { host: '[::1]:8080' }, 200],
  ])('answers %s %j with %d', async (path, options, status) => {
    const answer = await ask(path, options);
    expect(answer.status).toBe(status);
    expect(answer.text).not.toContain('root:');
  });

  test('says that a port is taken', async () => {
    const { port } = new URL(dash.url);
    const { exitCode, stderr } = await mbridge(['dash', runs, '--port', port]);
    expect(exitCode).toBe(4);
    expect(stderr).toMatch(/^error MB_DASH_PORT: cannot listen on port \d+ of 127.0.0.1: .*EADDRINUSE/);
  });

  test('is started and ended as a command', async () => {
    const named = new Running([process.execPath, BIN, 'dash', join(runs, 'real'), '--host', '0.0.0.0']);
    await named.says(/^http:\/\/\S+:\d+\/[0-9a-f]{32}\/\n/);
    expect(named.stderr).toMatch(/^warning: whoever has the address below and reaches 0.0.0.0 sees these runs/);
    named.child.kill('SIGINT');
    expect(await named.ended).toMatchObject({ code: 0 });
    expect(await mbridge(['dash', 'no-such-run'])).toMatchObject({
      exitCode: 7,
      stderr: expect.stringContaining('MB_NO_RUN'),
    });
  });
});

describe('what a page hears', () => {
  const made: string[] = [];
  afterEach(() => {
    for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
  });
  const copy = (name: string): string => {
    const folder = copyRun(runs, name);
    made.push(folder);
    return folder;
  };

  test('is a run from its beginning', async () => {
    const heard = await Heard.open();
    await heard.until('all updates', () => heard.steps('real').length === UPDATES);
    await heard.until('times of ranks', () =>
      heard.lines.some(({ file, events }) => file === 'ranks' && events.length > 0),
    );
    heard.close();
    expect(heard.items[0]).toMatchObject([{ name: 'real', state: 'done' }]);
    expect(heard.views[0]).toMatchObject({ updates: UPDATES, error: null, config: { 'train.train_iters': UPDATES } });
    const ranks = heard.lines.filter(({ file }) => file === 'ranks').flatMap(({ events }) => events);
    expect(ranks[0]).toMatchObject({ type: 'ranks', ms: [expect.any(Number), expect.any(Number)] });
  });

  test('is each whole line as it comes, and a file that was cut from its beginning', async () => {
    const folder = copy('grows');
    const heard = await Heard.open();
    await heard.until('the updates before', () => heard.steps('grows').length === UPDATES);
    append(folder, 'metrics.ndjson', stepLine(101, 2).slice(0, 30));
    append(folder, 'metrics.ndjson', stepLine(101, 2).slice(30) + stepLine(102, null) + '{"type":"step","st');
    await heard.until('the added ones', () => heard.steps('grows').includes(102));
    expect(heard.steps('grows').slice(-2)).toEqual([101, 102]);
    truncateSync(join(folder, 'metrics.ndjson'), 0);
    append(folder, 'metrics.ndjson', stepLine(7, 3));
    await heard.until('the cut file', () => heard.steps('grows').length === 1);
    expect(heard.steps('grows')).toEqual([7]);
    heard.close();
  });

  test('is a run that starts later, and why one failed', async () => {
    const heard = await Heard.open();
    await heard.until('the list', () => heard.items.length > 0);
    const folder = copy('later');
    await heard.until('its updates', () => heard.steps('later').length === UPDATES);
    const told = { rank: 1, step: 9, code: 'MB_X', message: 'it broke', hint: 'mend it' };
    const error = { ...told, stack: 'not told' };
    writeFileSync(join(folder, 'result.json'), JSON.stringify({ type: 'result', ok: false, error }));
    await heard.until('its failure', () => heard.views.at(-1)?.state === 'failed');
    expect(heard.views.at(-1)?.error).toEqual(told);
    heard.close();
  });

  test('is only what is asked for, where ids are', async () => {
    copy('other');
    const all = await Heard.open();
    await all.until('both', () => all.views.length === 2);
    all.close();
    const id = all.views.find(({ name }) => name === 'other')!.id;
    const heard = await Heard.open(`?run=${encodeURIComponent(id)}&run=..%2f..%2fetc`);
    await heard.until('the one', () => heard.steps('other').length === UPDATES);
    expect(heard.views.map(({ name }) => name)).toEqual(['other']);
    heard.close();
  });

  test('is nothing from outside of the folder, whatever leads there', async () => {
    const outside = temporaryFolder();
    const secret = copyRun(runs, 'secret');
    renameSync(secret, join(outside, 'secret'));
    symlinkSync(join(outside, 'secret'), join(runs, 'linked'));
    made.push(join(runs, 'linked'));
    const folder = copy('partly');
    rmSync(join(folder, 'metrics.ndjson'));
    symlinkSync(join(outside, 'secret', 'metrics.ndjson'), join(folder, 'metrics.ndjson'));
    const record = copy('record');
    rmSync(join(record, 'run.json'));
    symlinkSync(join(outside, 'secret', 'run.json'), join(record, 'run.json'));
    mkdirSync(join(runs, 'no-run'));
    made.push(join(runs, 'no-run'));
    const heard = await Heard.open();
    await heard.until('the files of a run', () => heard.lines.length >= 6);
    heard.close();
    expect(heard.items[0]?.map(({ name }) => name)).toEqual(['real', 'partly']);
    expect(heard.steps('partly')).toEqual([]);
  });
});
