import { createServer, type Server, Socket } from 'node:net';

/** What the proxy does to the next connection on which something happens. */
type Fault =
  /** The bytes never arrive, and the connection breaks. */
  | 'lose-request'
  /** The bytes arrive, their answer does not, and the connection breaks. */
  | 'lose-reply'
  /** The bytes arrive, their answer never does, and the connection stays open. */
  | 'hang-reply'
  /** The bytes never arrive, and the connection stays open. */
  | 'hang-request'
  /** Broken by the server's side, with RST. */
  | 'reset';

export interface ProxyRule {
  readonly fault: Fault;
  /** Only for what contains this text: `COMMIT`. Default: whatever is sent next. */
  readonly when?: string | undefined;
  /** How often, before it is over. Default: 1. */
  readonly times?: number | undefined;
}

/** Stands between a client and a server, and forwards bytes until it is told otherwise. Works for any protocol without TLS. */
export interface FaultProxy {
  readonly host: string;
  readonly port: number;
  /** What has been done to connections, by name. */
  readonly injected: Readonly<Record<Fault | 'refused', number>>;
  /** The next bytes from a client that fit are dealt with by this rule. Rules are taken in the order given. */
  next(rule: ProxyRule): void;
  /** Holds everything from the server for so long, from now on. 0 ends it. */
  delayReplies(ms: number): void;
  /** Refuses and breaks all connections, until `heal`. */
  cut(): void;
  /** Neither way moves any more, until `heal`; connections stay open. */
  freeze(): void;
  /** Forgets all rules, and goes on with what was held. */
  heal(): void;
  close(): Promise<void>;
}

/** Starts a proxy on a loopback port of its own. */
export async function proxyTo(target: { readonly host: string; readonly port: number }): Promise<FaultProxy> {
  const pairs = new Set<Pair>();
  const injected = { 'lose-request': 0, 'lose-reply': 0, 'hang-reply': 0, 'hang-request': 0, reset: 0, refused: 0 };
  let rules: { fault: Fault; when: string | undefined; times: number }[] = [];
  let delayMs = 0;
  let isCut = false;
  let isFrozen = false;

  const server: Server = createServer((client) => {
    if (isCut) {
      injected.refused++;
      return void client.resetAndDestroy();
    }
    const upstream = new Socket();
    upstream.connect(target.port, target.host);
    const pair: Pair = { client, upstream, replies: 'pass', requests: 'pass', timers: new Set() };
    pairs.add(pair);
    if (isFrozen) freezeOne(pair);
    client.setNoDelay(true);
    upstream.setNoDelay(true);
    client.on('data', (bytes) => onRequest(pair, bytes));
    upstream.on('data', (bytes) => onReply(pair, bytes));
    for (const socket of [client, upstream]) {
      socket.on('error', () => {});
      socket.on('close', () => closeOne(pair));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };

  function ruleFor(bytes: Buffer): Fault | undefined {
    const at = rules.findIndex(({ when }) => when === undefined || bytes.includes(when));
    const rule = rules[at];
    if (!rule) return undefined;
    rule.times--;
    if (rule.times === 0) rules.splice(at, 1);
    injected[rule.fault]++;
    return rule.fault;
  }

  function onRequest(pair: Pair, bytes: Buffer): void {
    if (pair.requests === 'swallow') return;
    const fault = ruleFor(bytes);
    if (fault === 'lose-request') return closeOne(pair);
    if (fault === 'reset') return void pair.client.resetAndDestroy();
    if (fault === 'hang-request') {
      pair.requests = 'swallow';
      return;
    }
    if (fault === 'lose-reply') pair.replies = 'break';
    if (fault === 'hang-reply') pair.replies = 'swallow';
    pair.upstream.write(bytes);
  }

  function onReply(pair: Pair, bytes: Buffer): void {
    if (pair.replies === 'swallow') return;
    if (pair.replies === 'break') return closeOne(pair);
    if (delayMs === 0 && pair.timers.size === 0) return void pair.client.write(bytes);
    const timer = setTimeout(() => {
      pair.timers.delete(timer);
      pair.client.write(bytes);
    }, delayMs);
    pair.timers.add(timer);
  }

  function freezeOne({ client, upstream }: Pair): void {
    client.pause();
    upstream.pause();
  }

  function closeOne(pair: Pair): void {
    pairs.delete(pair);
    for (const timer of pair.timers) clearTimeout(timer);
    pair.client.destroy();
    pair.upstream.destroy();
  }

  return {
    host: '127.0.0.1',
    port,
    injected,
    next: ({ fault, when, times = 1 }) => void rules.push({ fault, when, times }),
    delayReplies: (ms) => void (delayMs = ms),
    cut() {
      isCut = true;
      for (const pair of [...pairs]) {
        pair.client.resetAndDestroy();
        closeOne(pair);
      }
    },
    freeze() {
      isFrozen = true;
      for (const pair of pairs) freezeOne(pair);
    },
    heal() {
      rules = [];
      delayMs = 0;
      isCut = false;
      isFrozen = false;
      for (const { client, upstream } of pairs) {
        client.resume();
        upstream.resume();
      }
    },
    async close() {
      for (const pair of [...pairs]) closeOne(pair);
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

interface Pair {
  readonly client: Socket;
  readonly upstream: Socket;
  requests: 'pass' | 'swallow';
  replies: 'pass' | 'swallow' | 'break';
  readonly timers: Set<NodeJS.Timeout>;
}
