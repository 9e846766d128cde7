import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { expect, test, vi } from 'vitest';
import { Running, temporaryFolder, waitFor } from '../job/launch/processes.js';
import { BIN } from './mbridge.js';

vi.setConfig({ testTimeout: 60_000 });

test.each(['bench check --parts fixtures', 'bench step qwen3-tiny --steps 1000', 'bench comm --nproc 2'])(
  'mbridge %s that is interrupted leaves no process and no file',
  async (line) => {
    const folder = temporaryFolder();
    const command = [process.execPath, BIN, ...line.split(' '), '--device', 'cpu'];
    const run = new Running(command, { TMPDIR: folder });
    const children = `/proc/${run.pid}/task/${run.pid}/children`;
    const [child] = await waitFor('a process of its own', () => {
      const pids = readFileSync(children, 'utf8').trim();
      return pids === '' ? undefined : pids.split(' ');
    });
    process.kill(run.pid, 'SIGINT');
    const { code, stderr } = await run.ended;
    expect(code, stderr).toBe(130);
    // The check under way was ended, not waited for.
    expect(stderr).not.toMatch(/^(ok|failed) /m);
    expect(existsSync(`/proc/${child}`)).toBe(false);
    expect(readdirSync(folder)).toEqual([]);
  },
);
