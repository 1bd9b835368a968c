import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type FaultProxy, proxyTo } from './proxy.ts';

let echo: Server;
let arrived: string[];
let proxy: FaultProxy;
const opened: Socket[] = [];

beforeEach(async () => {
  arrived = [];
  echo = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      arrived.push(String(bytes));
      if (String(bytes) === 'quit') socket.end('bye');
      else socket.write(`echo ${bytes}`);
    });
  });
  await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve));
  proxy = await proxyTo({ host: '127.0.0.1', port: (echo.address() as AddressInfo).port });
});
afterEach(async () => {
  for (const socket of opened.splice(0)) socket.destroy();
  await proxy.close();
  echo.close();
});

/** A client of the proxy, and what becomes of what it sends. */
async function client() {
  const socket = connect(proxy.port, proxy.host);
  opened.push(socket);
  let error: NodeJS.ErrnoException | undefined;
  let closed = false;
  let heard = '';
  socket.on('data', (bytes) => (heard += bytes));
  socket.on('error', (thrown) => (error = thrown));
  socket.on('close', () => (closed = true));
  await new Promise<void>((resolve) => socket.once('connect', resolve).once('close', () => resolve()));
  return {
    /** The answer; `broken` when the connection ends instead; `nothing` when none comes while another connection gets its own. */
    ask: (text: string) =>
      new Promise<string>((resolve) => {
        if (closed) return resolve('broken');
        socket.once('data', (bytes) => resolve(String(bytes)));
        socket.once('close', () => resolve('broken'));
        socket.write(text);
      }),
    heard: () => heard,
    leave: () => void socket.destroy(),
    get code() {
      return error?.code;
    },
  };
}

/** `nothing` if there is no answer within the time that others need for many. */
async function orNothing(answer: Promise<string>): Promise<string> {
  const nothing = new Promise<string>((resolve) => setTimeout(() => resolve('nothing'), 100));
  return Promise.race([answer, nothing]);
}

describe('the fault proxy', () => {
  it('forwards both ways', async () => {
    const { ask } = await client();
    expect(await ask('one')).toBe('echo one');
    expect(await ask('two')).toBe('echo two');
  });

  it('loses a request: nothing arrives, and the connection breaks', async () => {
    proxy.next({ fault: 'lose-request' });
    expect(await (await client()).ask('one')).toBe('broken');
    expect(arrived).toEqual([]);
    expect(await (await client()).ask('two')).toBe('echo two');
    expect(proxy.injected['lose-request']).toBe(1);
  });

  it('loses a reply: the request arrives, and the connection breaks', async () => {
    proxy.next({ fault: 'lose-reply' });
    expect(await (await client()).ask('one')).toBe('broken');
    expect(arrived).toEqual(['one']);
    expect(proxy.injected['lose-reply']).toBe(1);
  });

  it('waits for the text that a rule names, and forwards everything else', async () => {
    proxy.next({ fault: 'lose-reply', when: 'COMMIT', times: 2 });
    for (let i = 0; i < 2; i++) {
      const { ask } = await client();
      expect(await ask('insert')).toBe('echo insert');
      expect(await ask('COMMIT')).toBe('broken');
    }
    expect(await (await client()).ask('COMMIT')).toBe('echo COMMIT');
  });

  it('hangs one way: the request arrives or not, no answer comes, and the connection stays open', async () => {
    proxy.next({ fault: 'hang-reply' });
    const one = await client();
    expect(await orNothing(one.ask('one'))).toBe('nothing');
    expect(arrived).toEqual(['one']);
    proxy.next({ fault: 'hang-request' });
    const two = await client();
    expect(await orNothing(two.ask('two'))).toBe('nothing');
    expect(arrived).toEqual(['one']);
    expect(one.code ?? two.code).toBe(undefined);
  });

  it('resets a connection', async () => {
    proxy.next({ fault: 'reset' });
    const one = await client();
    expect(await one.ask('one')).toBe('broken');
    expect(one.code).toBe('ECONNRESET');
  });

  it('delays replies, and keeps their order', async () => {
    proxy.delayReplies(150);
    const { ask, heard } = await client();
    const answer = ask('one');
    expect(await orNothing(answer)).toBe('nothing');
    proxy.delayReplies(0);
    await ask('two');
    await expect.poll(heard).toBe('echo oneecho two');
    expect(proxy.injected.delayed).toBe(1);
  });

  it('holds a request until it heals: it arrives late, even from a client that has gone', async () => {
    proxy.next({ fault: 'hold-request' });
    const one = await client();
    expect(await orNothing(one.ask('one'))).toBe('nothing');
    one.leave();
    expect(await (await client()).ask('two')).toBe('echo two');
    expect(arrived).toEqual(['two']);
    proxy.heal();
    await expect.poll(() => arrived).toEqual(['two', 'one']);
    expect(proxy.injected['hold-request']).toBe(1);
  });

  it('holds a reply until it heals', async () => {
    proxy.next({ fault: 'hold-reply' });
    const { ask } = await client();
    const answer = ask('one');
    expect(await orNothing(answer)).toBe('nothing');
    expect(arrived).toEqual(['one']);
    proxy.heal();
    expect(await answer).toBe('echo one');
  });

  it('forwards the last words of a server that closes, late ones too', async () => {
    proxy.delayReplies(20);
    expect(await (await client()).ask('quit')).toBe('bye');
  });

  it('takes rules in order, also by a function of the bytes', async () => {
    proxy.next({ fault: 'reset', when: (bytes) => bytes[0] === 0x7f });
    proxy.next({ fault: 'lose-request' });
    expect(await (await client()).ask('one')).toBe('broken');
    expect(await (await client()).ask('two')).toBe('echo two');
    expect(await (await client()).ask('\x7f')).toBe('broken');
    expect(proxy.injected).toMatchObject({ 'lose-request': 1, reset: 1 });
  });

  it('listens where it is told to, for servers that send their clients there', async () => {
    const { port } = proxy;
    await proxy.close();
    proxy = await proxyTo({ host: '127.0.0.1', port: (echo.address() as AddressInfo).port }, port);
    expect(proxy.port).toBe(port);
    expect(await (await client()).ask('one')).toBe('echo one');
  });

  it('freezes and cuts everything until it heals', async () => {
    const one = await client();
    proxy.freeze();
    const answer = one.ask('one');
    expect(await orNothing(answer)).toBe('nothing');
    proxy.heal();
    expect(await answer).toBe('echo one');
    proxy.cut();
    expect(await one.ask('two')).toBe('broken');
    expect(await (await client()).ask('three')).toBe('broken');
    expect(proxy.injected).toMatchObject({ frozen: 1, cut: 1, refused: 1 });
    proxy.heal();
    expect(await (await client()).ask('four')).toBe('echo four');
  });
});
