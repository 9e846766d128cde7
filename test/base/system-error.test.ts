import { openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { MbridgeError } from '../../src/base/errors.js';
import { errnoOf, faultSaid, systemError } from '../../src/base/system-error.js';

async function thrownBy(act: () => unknown): Promise<unknown> {
  try {
    await act();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

describe('a failed call of the system has an exit code and a remedy', () => {
  it.each<[string, () => unknown, object]>([
    ['a missing file', () => readFileSync('/nowhere/x'), { exitCode: 7, code: 'MB_IO', details: { errno: 'ENOENT' } }],
    ['a folder', () => readFileSync('/'), { exitCode: 7, details: { errno: 'EISDIR' } }],
    [
      'a full disk',
      () => writeFileSync('/dev/full', 'x'),
      { exitCode: 7, hint: expect.stringContaining('space') as string },
    ],
    ['a file as a folder', () => openSync('/proc/version/x', 'r'), { exitCode: 7, details: { errno: 'ENOTDIR' } }],
    [
      'a port that is taken',
      async () => {
        const server = createServer();
        await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
        const second = createServer();
        try {
          await new Promise<void>((resolve, reject) => second.once('error', reject).listen(server.address(), resolve));
        } finally {
          server.close();
        }
      },
      { exitCode: 4, code: 'MB_SYSTEM', hint: 'choose a free port' },
    ],
  ])('%s', async (_, act, expected) => {
    const error = systemError(await thrownBy(act));
    expect(error).toBeInstanceOf(MbridgeError);
    expect(error).toMatchObject(expected);
  });

  const failed = (code: string, more: object = { syscall: 'open' }): Error =>
    Object.assign(new Error(`open ${code}`), { code, ...more });
  it.each([
    ...['EMFILE', 'ENFILE', 'EAGAIN', 'ENOMEM', 'EADDRINUSE', 'ENOTFOUND', 'ERR_WORKER_INIT_FAILED'].map((e) => [e, 4]),
    ...['ENOSPC', 'EDQUOT', 'EFBIG', 'EIO', 'EROFS', 'EACCES', 'EPERM', 'EPIPE', 'ENOENT'].map((e) => [e, 7]),
  ] as [string, number][])('%s: %i', (code, exitCode) => {
    const error = systemError(failed(code));
    expect(error?.exitCode).toBe(exitCode);
    expect(error?.message).toMatch(/: \w/); // what it means, not the number alone
    expect(error?.hint).toMatch(/\w/);
  });

  it('an unknown number is a file that fails, or the environment', () => {
    expect(systemError(failed('EUCLEAN', { syscall: 'read', path: '/x' }))?.exitCode).toBe(7);
    expect(systemError(failed('EUCLEAN', { syscall: 'uname' }))?.exitCode).toBe(4);
  });

  it.each([
    ['a bug', new TypeError('x is not a function')],
    ["Node's own error", Object.assign(new Error('bad'), { code: 'ERR_INVALID_ARG_TYPE' })],
    ['a text', 'ENOENT'],
    ['null', null],
  ])('no call of the system: %s', (_, error) => {
    expect(errnoOf(error)).toBeUndefined();
    expect(systemError(error)).toBeUndefined();
  });

  it('the remedy of a limit is the limit, that of a path is what the caller knows', () => {
    const about = { code: 'MB_X', what: 'make it', hint: 'name another folder' };
    expect(systemError(failed('EACCES'), about)).toMatchObject({ code: 'MB_X', hint: 'name another folder' });
    expect(systemError(failed('EMFILE'), about)?.hint).toContain('ulimit -n');
  });

  it('the last words of a program', () => {
    const lines = ['terminate called', '  what():  std::bad_alloc'];
    expect(faultSaid(lines)).toMatchObject({ errno: 'ENOMEM', kind: 'environment' });
    expect(faultSaid(['Segmentation fault'])).toBeUndefined();
  });
});
