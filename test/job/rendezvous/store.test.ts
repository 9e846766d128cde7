import { connect } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { connectStore } from '../../../src/job/rendezvous/store-client.js';
import { formatRanks } from '../../../src/base/format-ranks.js';
import { proofOf } from '../../../src/job/rendezvous/store-protocol.js';
import { StoreServer } from '../../../src/job/rendezvous/store-server.js';
import { communicatorKey, type Store } from '../../../src/job/rendezvous/store.js';

const TOKEN = 'a-secret';

async function serve(worldSize = 2): Promise<StoreServer> {
  const server = await StoreServer.listen({ host: '127.0.0.1', port: 0, token: TOKEN, worldSize });
  onTestFinished(() => server.close());
  return server;
}

function join(
  server: { port: number },
  rank: number,
  given: { token?: string; worldSize?: number } = {},
): Promise<Store> {
  const { token = TOKEN, worldSize = 2 } = given;
  return connectStore({ host: '127.0.0.1', port: server.port, token, rank, worldSize, timeoutMs: 500 });
}

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));

describe('store', () => {
  it('hands a value to those that ask before and after it is set', async () => {
    const server = await serve();
    const [a, b] = [await join(server, 0), await join(server, 1)];
    const id = Uint8Array.from({ length: 128 }, (_, i) => 255 - i);
    const key = communicatorKey('tp', [0, 1]);
    const before = b.get(key, 5_000);
    await a.set(key, id);
    expect(await before).toEqual(id);
    expect(await b.get(key, 5_000)).toEqual(id);
    expect(await a.get(key, 5_000)).toEqual(id);
  });

  it('counts', async () => {
    const server = await serve();
    const [a, b] = [await join(server, 0), await join(server, 1)];
    expect([await a.add('n', 1), await b.add('n', 2), await a.add('m', 5)]).toEqual([1, 3, 5]);
  });

  it('refuses a second, different value', async () => {
    const a = await join(await serve(), 0);
    await a.set('k', bytes('x'));
    await a.set('k', bytes('x'));
    await expect(a.set('k', bytes('y'))).rejects.toMatchObject({ code: 'MB_STORE_CONFLICT', exitCode: 1 });
  });

  it('names the ranks that are missing when time is up', async () => {
    const server = await serve(4);
    const a = await join(server, 1, { worldSize: 4 });
    const error = { code: 'MB_RENDEZVOUS_TIMEOUT', exitCode: 4 };
    await expect(a.get('k', 100)).rejects.toMatchObject({
      ...error,
      message: "rank 1: 'k' was not set within 0.1 s: rank 0, 2-3 of 4 never connected",
    });
    await Promise.all([0, 2, 3].map((rank) => join(server, rank, { worldSize: 4 })));
    await expect(a.get('k', 100)).rejects.toMatchObject({
      ...error,
      message: expect.stringContaining('stuck') as string,
    });
  });

  it('fails waits at once when a rank is lost, but not when it has left in order', async () => {
    const server = await serve(3);
    const [a, b] = await Promise.all([0, 1].map((rank) => join(server, rank, { worldSize: 3 })));
    await b?.close();
    await expect(a?.get('k', 100)).rejects.toMatchObject({ code: 'MB_RENDEZVOUS_TIMEOUT' });

    const wait = expect(a?.get('k', 60_000)).rejects.toMatchObject({
      code: 'MB_PEER_LOST',
      exitCode: 5,
      message: 'rank 0: rank 2 was lost',
    });
    const raw = await dial(server.port);
    raw.socket.write(`${JSON.stringify({ rank: 2, worldSize: 3, proof: proofOf(TOKEN, raw.nonce, 2, 3) })}\n`);
    await raw.nextLine(); // welcomed
    raw.socket.destroy();
    await wait;
    await expect(a?.get('later', 60_000)).rejects.toMatchObject({ code: 'MB_PEER_LOST' });
  });

  it('fails requests when the server is gone', async () => {
    const server = await StoreServer.listen({ host: '127.0.0.1', port: 0, token: TOKEN, worldSize: 1 });
    const a = await join(server, 0, { worldSize: 1 });
    const wait = expect(a.get('k', 60_000)).rejects.toMatchObject({ code: 'MB_PEER_LOST' });
    await server.close();
    await wait;
    await expect(a.set('k', bytes('x'))).rejects.toMatchObject({ code: 'MB_PEER_LOST' });
    await a.close(); // leaving a store that is gone is no error
  });
});

describe('who may connect', () => {
  it.each([
    ['another token', { token: 'guess' }, 'refused the token: it belongs to another run'],
    ['another world size', { worldSize: 8 }, 'the run has 2 ranks, but rank 0 was told 8'],
  ])('%s', async (_, given, reason) => {
    const server = await serve();
    await expect(join(server, 0, given)).rejects.toMatchObject({
      code: 'MB_STORE_REFUSED',
      exitCode: 4,
      message: expect.stringContaining(reason) as string,
    });
  });

  it('a rank twice', async () => {
    const server = await serve();
    await join(server, 1);
    await expect(join(server, 1)).rejects.toMatchObject({ code: 'MB_STORE_REFUSED', message: /two processes/ });
  });

  it('nobody listens', async () => {
    const server = await serve();
    const { port } = server;
    await server.close();
    await expect(join({ port }, 1)).rejects.toMatchObject({ code: 'MB_RENDEZVOUS_TIMEOUT', message: /ECONNREFUSED/ });
  });

  it('the server starts late', async () => {
    const first = await serve();
    const { port } = first;
    await first.close();
    const waiting = join({ port }, 0);
    await new Promise((resolve) => setTimeout(resolve, 150));
    const late = await StoreServer.listen({ host: '127.0.0.1', port, token: TOKEN, worldSize: 2 });
    onTestFinished(() => late.close());
    await (await waiting).set('k', bytes('x'));
  });

  const STRANGERS: [name: string, sent: string][] = [
    ['no token', '{"rank":0,"worldSize":2}\n'],
    ['an empty proof', '{"rank":0,"worldSize":2,"proof":""}\n'],
    ['a proof for another nonce', `${JSON.stringify({ rank: 0, worldSize: 2, proof: proofOf(TOKEN, 'old', 0, 2) })}\n`],
    ['a request without a hello', '{"id":1,"op":"set","key":"k","value":"eA=="}\n'],
    ['another protocol', 'GET / HTTP/1.1\r\n\r\n'],
    ['null', 'null\n'],
    ['an endless line', 'x'.repeat(300_000)],
  ];
  it.each(STRANGERS)('is dropped without a word: %s', async (_, sent) => {
    const { socket, rest, closed } = await dial((await serve()).port);
    socket.write(sent);
    await closed;
    expect(rest()).toBe('');
  });
});

it.each([
  [[], ''],
  [[3], '3'],
  [[2, 0, 1], '0-2'],
  [[0, 2, 3, 7], '0, 2-3, 7'],
])('ranks %j read %j', (ranks, text) => {
  expect(formatRanks(ranks)).toBe(text);
});

/** A raw connection that has read the greeting. */
async function dial(port: number) {
  const socket = connect(port, '127.0.0.1');
  let received = '';
  socket.on('data', (chunk: Buffer) => (received += chunk.toString()));
  socket.on('error', () => undefined);
  const closed = new Promise<void>((resolve) =>
    socket.once('close', () => {
      resolve();
    }),
  );
  const nextLine = async (): Promise<string> => {
    while (!received.includes('\n')) await new Promise((resolve) => socket.once('data', resolve));
    const [line = ''] = received.split('\n', 1);
    received = received.slice(line.length + 1);
    return line;
  };
  const { nonce } = JSON.parse(await nextLine()) as { nonce: string };
  return { socket, nonce, nextLine, closed, rest: () => received };
}
