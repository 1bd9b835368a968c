/**
 * A payment gateway in a process of its own. It honours idempotency keys or ignores them, compares fences where it is given any, loses
 * replies, and answers late. Run as a program it serves until its parent ends; imported, it starts that program.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** Money that has moved. */
export interface Transfer {
  readonly id: number;
  readonly what: string;
  readonly key: string;
}

export interface Gateway {
  readonly url: string;
  /** All that has moved so far, in order. */
  transfers(): Promise<Transfer[]>;
  /** What has been asked for so far, whether or not it has happened yet. */
  asked(): Promise<string[]>;
  /** The next request moves its money and loses its reply, or moves it only when it is released. */
  disturb(how: 'lose its reply' | 'hold it'): Promise<void>;
  /** Lets all requests go on that are held, and resolves when they have moved their money. */
  release(): Promise<void>;
  stop(): Promise<void>;
}

const self = fileURLToPath(import.meta.url);

export async function startGateway(keys: 'honoured' | 'ignored'): Promise<Gateway> {
  const child: ChildProcess = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', self, keys], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const [url] = (await createInterface(child.stdout!)
    [Symbol.asyncIterator]()
    .next()
    .then(({ value }) => [value])) as [string];
  const get = async (path: string) => (await fetch(url + path)).json();
  return {
    url,
    transfers: () => get('/transfers') as Promise<Transfer[]>,
    asked: () => get('/asked') as Promise<string[]>,
    disturb: async (how) => void (await get(`/disturb/${encodeURIComponent(how)}`)),
    release: async () => void (await get('/release')),
    async stop() {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** What a worker asks of the gateway. */
export function gatewayClient(url: string) {
  return {
    /** Moves money. Rejects when no reply comes. */
    async move(what: string, options: { key?: string; fence?: number } = {}): Promise<number> {
      const headers: Record<string, string> = {};
      if (options.key) headers['idempotency-key'] = options.key;
      if (options.fence) headers['fence'] = String(options.fence);
      const reply = await fetch(`${url}/move/${encodeURIComponent(what)}`, { method: 'POST', headers });
      if (!reply.ok) throw new Error(`The gateway answered ${reply.status}`);
      return ((await reply.json()) as Transfer).id;
    },
    /** Whether a transfer with this key has happened. */
    async find(key: string): Promise<Transfer | undefined> {
      const reply = await fetch(`${url}/find/${key}`);
      return reply.ok ? ((await reply.json()) as Transfer) : undefined;
    },
  };
}

function serve(honoursKeys: boolean): void {
  const transfers: Transfer[] = [];
  const asked: string[] = [];
  const fences = new Map<string, number>();
  const held: (() => void)[] = [];
  let disturbed = '';

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const reply = (status: number, body: unknown) => response.writeHead(status).end(JSON.stringify(body));
    const [, verb, argument = ''] = request.url!.split('/').map(decodeURIComponent);
    const key = String(request.headers['idempotency-key'] ?? '');
    switch (verb) {
      case 'transfers':
        return void reply(200, transfers);
      case 'asked':
        return void reply(200, asked);
      case 'disturb':
        disturbed = argument;
        return void reply(200, {});
      case 'release':
        for (const go of held.splice(0)) go();
        await new Promise((resolve) => setImmediate(resolve));
        return void reply(200, {});
      case 'find': {
        const found = transfers.find((each) => each.key === argument);
        return void reply(found ? 200 : 404, found ?? {});
      }
      case 'move': {
        asked.push(argument);
        const how = disturbed;
        disturbed = '';
        // The request has arrived: that its client dies or gives up meanwhile changes nothing.
        if (how === 'hold it') await new Promise<void>((resolve) => held.push(resolve));
        const fence = Number(request.headers['fence'] ?? Number.POSITIVE_INFINITY);
        if (fence < (fences.get(argument) ?? 0)) return void reply(409, { error: 'stale fence' });
        if (Number.isFinite(fence)) fences.set(argument, fence);
        const known = honoursKeys && key ? transfers.find((each) => each.key === key) : undefined;
        const transfer = known ?? { id: transfers.length + 1, what: argument, key };
        if (!known) transfers.push(transfer);
        if (how === 'lose its reply') return void request.socket.destroy();
        return void reply(200, transfer);
      }
      default:
        return void reply(404, {});
    }
  }

  const server = createServer((request, response) => void answer(request, response));
  server.listen(0, '127.0.0.1', () => process.stdout.write(`http://127.0.0.1:${(server.address() as { port: number }).port}\n`));
  process.stdin.resume().once('end', () => process.exit(0));
}

if (process.argv[1] === self) serve(process.argv[2] === 'honoured');
