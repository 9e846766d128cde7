import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { networkInterfaces } from 'node:os';
import { describe, expect, it, onTestFinished } from 'vitest';
import { listenAddress } from '../../../src/job/rendezvous/listen-address.js';
import { privateFolder } from '../../../src/job/rendezvous/private-socket.js';
import { connectStore } from '../../../src/job/rendezvous/store-client.js';
import { StoreServer } from '../../../src/job/rendezvous/store-server.js';
import { Running, temporaryFolder } from '../launch/processes.js';

const uid = process.getuid?.() ?? 0;

describe('the folder in which the ranks of a node meet', () => {
  it('is made for this user alone, and found again', () => {
    const root = temporaryFolder();
    const folder = privateFolder(root, '/nowhere');
    expect(folder).toBe(join(root, 'mbridge'));
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(privateFolder(root, '/nowhere')).toBe(folder);
  });

  it.each<[string, (root: string) => string | undefined]>([
    ['not set', () => undefined],
    ['missing', (root) => join(root, 'absent')],
    ['relative', () => 'runtime'],
    ['too long for a socket', (root) => join(root, 'x'.repeat(100))],
    [
      'open to others',
      (root) => {
        const open = join(root, 'open');
        mkdirSync(open);
        chmodSync(open, 0o755);
        return open;
      },
    ],
  ])('is /tmp/mbridge-<uid> where XDG_RUNTIME_DIR is %s', (_, runtimeDir) => {
    const root = temporaryFolder();
    expect(privateFolder(runtimeDir(root), root)).toBe(join(root, `mbridge-${uid}`));
  });

  const FOREIGN: [name: string, make: (folder: string, root: string) => void, message: RegExp, root?: true][] = [
    [
      'a link',
      (folder, root) => {
        mkdirSync(join(root, 'elsewhere'), { mode: 0o700 });
        symlinkSync(join(root, 'elsewhere'), folder);
      },
      /is a link/,
    ],
    [
      'open to others',
      (folder) => {
        mkdirSync(folder);
        chmodSync(folder, 0o755);
      },
      /is no folder of mode 0700/,
    ],
    [
      "another user's",
      (folder) => {
        mkdirSync(folder, { mode: 0o700 });
        chownSync(folder, 65_534, 65_534);
      },
      /belongs to uid 65534/,
      true,
    ],
    ['in a folder where all may write', (_, root) => chmodSync(root, 0o777), /could be replaced/],
  ];
  it.each(FOREIGN)('is refused where it is %s', (_, make, message, needsRoot) => {
    if (needsRoot === true && uid !== 0) return;
    const root = temporaryFolder();
    make(join(root, `mbridge-${uid}`), root);
    expect(() => privateFolder(undefined, root)).toThrow(
      expect.objectContaining({
        code: 'MB_STORE_FOLDER',
        exitCode: 4,
        message: expect.stringMatching(message) as string,
      }),
    );
  });
});

describe('a store at a socket', () => {
  const TOKEN = '';
  const serve = async (socket: string, worldSize: number): Promise<StoreServer> => {
    const server = await StoreServer.listen({ socket, token: TOKEN, worldSize });
    onTestFinished(() => server.close());
    return server;
  };

  it('serves, and leaves no file once all ranks are there', async () => {
    const folder = privateFolder(temporaryFolder());
    const socket = join(folder, 'a.sock');
    await serve(socket, 2);
    expect(readdirSync(folder)).toEqual(['a.sock']);
    const join2 = (rank: number) => connectStore({ socket, token: TOKEN, rank, worldSize: 2, timeoutMs: 10_000 });
    const [a, b] = [await join2(0), await join2(1)];
    expect(existsSync(folder)).toBe(false);
    await a.set('k', new Uint8Array([1]));
    expect(await b.get('k', 500)).toEqual(new Uint8Array([1]));
  });

  it('leaves no file where it ends before that', async () => {
    const folder = privateFolder(temporaryFolder());
    const server = await serve(join(folder, 'a.sock'), 2);
    await server.close();
    expect(existsSync(folder)).toBe(false);
  });

  it('refuses the name that another run has, and takes it over from one that was killed', async () => {
    const folder = privateFolder(temporaryFolder());
    const socket = join(folder, 'a.sock');
    const other = `require('net').createServer().listen(${JSON.stringify(socket)}, () => console.log('listens'))`;
    const run = new Running([process.execPath, '-e', other]);
    await run.says(/listens/);
    await expect(serve(socket, 1)).rejects.toMatchObject({
      code: 'MB_STORE_PORT',
      exitCode: 4,
      message: /another run/,
    });
    expect(readdirSync(folder)).toEqual(['a.sock']);
    run.child.kill('SIGKILL');
    await run.ended;
    expect(readdirSync(folder)).toEqual(['a.sock']);
    await serve(socket, 1);
    const store = await connectStore({ socket, token: TOKEN, rank: 0, worldSize: 1, timeoutMs: 10_000 });
    await store.set('k', new Uint8Array([1]));
  });
});

describe('where rank 0 of several nodes listens', () => {
  const own = Object.values(networkInterfaces())
    .flatMap((entries) => entries ?? [])
    .find(({ internal, family }) => !internal && family === 'IPv4')?.address;
  it.each([
    ['localhost', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1'],
    ['127.0.0.2', '127.0.0.2'],
    ['::1', '::1'],
    ['192.0.2.1', '0.0.0.0'], // not this node's: a virtual address
    ['2001:db8::1', '::'],
    ...(own === undefined ? [] : [[own, own]]),
  ])('MASTER_ADDR %s: %s', async (masterAddr, expected) => {
    expect(await listenAddress(masterAddr)).toBe(expected);
  });

  it('a name that nobody knows', async () => {
    await expect(listenAddress('no-such-host.invalid')).rejects.toMatchObject({
      code: 'MB_STORE_ADDRESS',
      exitCode: 4,
      message: /^cannot find MASTER_ADDR no-such-host\.invalid/,
    });
  });
});
