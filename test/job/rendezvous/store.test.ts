import { randomBytes } from 'node:crypto';
import { connect, createServer, type AddressInfo } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { connectStore } from '../../../src/job/rendezvous/store-client.js';
import { formatRanks } from '../../../src/base/format-ranks.js';
import { proofOf, type Handshake } from '../../../src/job/rendezvous/store-protocol.js';
import { StoreServer } from '../../../src/job/rendezvous/store-server.js';
import { communicatorKey, type Store } from '../../../src/job/rendezvous/store.js';

const TOKEN = 'a-secret';

async function serve(worldSize = 2, handshakeMs?: number): Promise<StoreServer> {
  const more = handshakeMs === undefined ? {} : { handshakeMs };
  const server = await StoreServer.listen({ host: '127.0.0.1', port: 0, token: TOKEN, worldSize, ...more });
  onTestFinished(() => server.close());
  return server;
}

function join(
  server: { port: number },
  rank: number,
  given: { token?: string; worldSize?: number; timeoutMs?: number } = {},
): Promise<Store> {
  const { token = TOKEN, worldSize = 2, timeoutMs = 10_000 } = given;
  return connectStore({ host: '127.0.0.1', port: server.port, token, rank, worldSize, timeoutMs });
}

/** What a client or a server sends as its own. */
const NONCE = randomBytes(16).toString('hex');

/** A hello of rank 0 of 2 that proves what `change` leaves of the right handshake. */
function hello(side: 'server' | 'client', change: Partial<Handshake>): (nonce: string) => string {
  return (serverNonce) => {
    const proven = { token: TOKEN, serverNonce, clientNonce: NONCE, rank: 0, worldSize: 2, ...change };
    return `${JSON.stringify({ rank: 0, worldSize: 2, nonce: NONCE, proof: proofOf(side, proven) })}\n`;
  };
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
    (await member(server.port, 2, 3)).socket.destroy();
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
    await expect(join({ port }, 1, { timeoutMs: 500 })).rejects.toMatchObject({
      code: 'MB_RENDEZVOUS_TIMEOUT',
      message: /ECONNREFUSED/,
    });
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

  const STRANGERS: [name: string, sent: string | ((nonce: string) => string)][] = [
    ['no proof', '{"rank":0,"worldSize":2}\n'],
    ['an empty proof', `{"rank":0,"worldSize":2,"nonce":"${NONCE}","proof":""}\n`],
    ['a proof that is no text', `{"rank":0,"worldSize":2,"nonce":"${NONCE}","proof":{"toString":1}}\n`],
    ['a proof of another token', hello('client', { token: 'guess' })],
    ['a proof for another nonce of the server', hello('client', { serverNonce: NONCE })],
    ['the proof that a server gives', hello('server', {})],
    ['a rank of the wrong type', `{"rank":"0","worldSize":2,"nonce":"${NONCE}","proof":"${'a'.repeat(64)}"}\n`],
    ['a deep array', `${'['.repeat(900)}\n`],
    ['a request without a hello', '{"id":1,"op":"set","key":"k","value":"eA=="}\n'],
    ['another protocol', 'GET / HTTP/1.1\r\n\r\n'],
    ['null', 'null\n'],
    ['a list', '[]\n'],
    ['a number that is none', '1e999\n'],
    ['bytes that are no text', '\u0000\u0001\ufffd\n'],
    ['an endless line', 'x'.repeat(300_000)],
    ['lines without an end', '\n'.repeat(2_000)],
  ];
  it.each(STRANGERS)('is dropped without a word: %s', async (_, sent) => {
    const server = await serve();
    const { socket, nonce, rest, closed } = await dial(server.port);
    socket.write(typeof sent === 'string' ? sent : sent(nonce));
    await closed;
    expect(rest()).toBe('');
    await join(server, 0);
  });

  it('who proves nothing in time is dropped, however often a byte comes', async () => {
    const server = await serve(2, 300);
    const { socket, closed } = await dial(server.port);
    const bytes = setInterval(() => socket.write(' '), 50);
    onTestFinished(() => {
      clearInterval(bytes);
    });
    await closed;
    await join(server, 0);
  });

  it('strangers are held in bounded numbers, and ranks still get in', async () => {
    const server = await serve();
    const all = await Promise.all(Array.from({ length: 200 }, () => dial(server.port)));
    const a = await join(server, 0);
    await a.set('k', bytes('x'));
    expect(all.filter(({ socket }) => !socket.destroyed).length).toBeLessThanOrEqual(66);
  });

  const REQUESTS = [
    'null',
    '[]',
    'x',
    '{"id":1}',
    '{"id":1,"op":"x"}',
    '{"id":1,"op":"__proto__"}',
    '{"id":1,"op":"get","key":"k","timeoutMs":{"toString":1}}',
    '{"id":1,"op":"get","key":"k","timeoutMs":-1}',
    '{"id":1,"op":"get","key":"k","timeoutMs":1e10}',
    '{"id":1,"op":"get","key":{},"timeoutMs":1}',
    '{"id":1,"op":"set","key":"k","value":7}',
    '{"id":1,"op":"add","key":"k","delta":1e999}',
    '{"id":null,"op":"bye"}',
    '{"id":{"toString":1},"op":"bye"}',
    'x'.repeat(300_000),
  ];
  it.each(REQUESTS)('a member whose request is none is lost, and the others are served: %.60s', async (request) => {
    const server = await serve();
    const a = await join(server, 0);
    const wait = expect(a.get('k', 60_000)).rejects.toMatchObject({ code: 'MB_PEER_LOST', message: /rank 1 was lost/ });
    const { socket, closed } = await member(server.port, 1, 2);
    socket.write(`${request}\n`);
    await closed;
    await wait;
    expect(await a.add('n', 1)).toBe(1);
  });
});

describe('what a client says of a server that is none', () => {
  const greeting = `{"protocol":"mbridge-store/2","nonce":"${NONCE}"}\n`;
  const refused = ['MB_STORE_REFUSED', /is no rendezvous store of this version/] as const;
  const unproven = ['MB_STORE_REFUSED', /does not know the token/] as const;
  const CASES: [name: string, greeting: string | null, answer: string | null, code: string, message: RegExp][] = [
    ['null', 'null\n', null, ...refused],
    ['a number', '5\n', null, ...refused],
    ['a list', '[]\n', null, ...refused],
    ['HTTP', 'HTTP/1.1 400 Bad Request\r\n\r\n', null, ...refused],
    ['SSH', 'SSH-2.0-OpenSSH_9\r\n', null, ...refused],
    ['bytes', '\u0000\u0001\ufffd\n', null, ...refused],
    ['an endless line', 'x'.repeat(600_000), null, ...refused],
    ['an older store', '{"protocol":"mbridge-store/1","nonce":"x"}\n', null, ...refused],
    ['no nonce', '{"protocol":"mbridge-store/2"}\n', null, ...refused],
    ['a nonce that is no text', '{"protocol":"mbridge-store/2","nonce":{"toString":1}}\n', null, ...refused],
    ['nothing', '', null, 'MB_RENDEZVOUS_TIMEOUT', /no greeting/],
    ['a byte now and then', ' ', null, 'MB_RENDEZVOUS_TIMEOUT', /no greeting/],
    ['an end', null, null, 'MB_RENDEZVOUS_TIMEOUT', /closed before a greeting|ECONNRESET/],
    ['null as an answer', greeting, 'null\n', ...refused],
    ['an answer to another', greeting, '{"id":7}\n', ...refused],
    ['an unknown failure', greeting, '{"id":0,"failure":{"code":"__proto__","message":{}}}\n', ...refused],
    ['a failure that is null', greeting, '{"id":0,"failure":null}\n', ...refused],
    ['a welcome without a proof', greeting, '{"id":0}\n', ...unproven],
    ['a welcome with another proof', greeting, `{"id":0,"proof":"${'a'.repeat(64)}"}\n`, ...unproven],
    ["the client's own proof", greeting, 'echo', ...unproven],
  ];
  it.each(CASES)('%s', async (_, first, answer, code, message) => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      if (first === null) socket.destroy();
      else if (first === ' ') setInterval(() => socket.write(' '), 50).unref();
      else socket.write(first);
      socket.on('data', (chunk: Buffer) => {
        const { proof } = JSON.parse(chunk.toString()) as { proof: string };
        if (answer !== null) socket.write(answer === 'echo' ? `${JSON.stringify({ id: 0, proof })}\n` : answer);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      server.close();
    });
    const { port } = server.address() as AddressInfo;
    const timeoutMs = code === 'MB_RENDEZVOUS_TIMEOUT' ? 500 : 10_000;
    await expect(join({ port }, 1, { timeoutMs })).rejects.toMatchObject({ code, exitCode: 4, message });
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

/** A raw connection of a rank that is welcome. */
async function member(port: number, rank: number, worldSize: number) {
  const raw = await dial(port);
  const proof = proofOf('client', { token: TOKEN, serverNonce: raw.nonce, clientNonce: NONCE, rank, worldSize });
  raw.socket.write(`${JSON.stringify({ rank, worldSize, nonce: NONCE, proof })}\n`);
  await raw.nextLine();
  return raw;
}

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
