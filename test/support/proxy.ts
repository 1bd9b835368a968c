import { createServer, Socket } from 'node:net';

/** What the proxy does to a connection when the client sends something that fits. */
type Fault =
  /** It never arrives, and the connection breaks. */
  | 'lose-request'
  /** It arrives. At the next answer on this connection, which is lost, the connection breaks. */
  | 'lose-reply'
  /** Neither it nor anything later arrives; answers still come, and the connection stays open. */
  | 'hang-request'
  /** It arrives, but no answer does any more; the connection stays open. */
  | 'hang-reply'
  /** It, and what follows on this connection, arrives after `heal`: late, even if the client has gone by then. */
  | 'hold-request'
  /** It arrives; answers come after `heal`. */
  | 'hold-reply'
  /** Broken by the server's side, with RST; it does not arrive. */
  | 'reset';

export interface ProxyRule {
  readonly fault: Fault;
  /** Only for what contains this text (`COMMIT`), or fits. It sees what comes in one piece: a request, unless that is long. Default: whatever is sent next. */
  readonly when?: string | ((bytes: Buffer) => boolean) | undefined;
  /** How often, before it is over. Default: 1. */
  readonly times?: number | undefined;
}

/** How often each thing was done, for a test to see that its fault has happened. Cut and frozen are counted by connection, delayed by piece. */
export type Injected = Record<Fault | 'cut' | 'delayed' | 'frozen' | 'refused', number>;

/**
 * Stands between a client and a server, and forwards bytes until it is told otherwise. Works for any protocol without TLS whose servers don't
 * send their clients elsewhere (Kafka does: give the proxy a `port`, and the broker that as its advertised listener).
 */
export interface FaultProxy {
  readonly host: string;
  readonly port: number;
  readonly injected: Readonly<Injected>;
  /** The next bytes from a client that fit are dealt with by this rule. Rules are taken in the order given. */
  next(rule: ProxyRule): void;
  /** Lets everything from the server come so much later, from now on. 0 ends it. */
  delayReplies(ms: number): void;
  /** Breaks all connections and refuses new ones, until `heal`. */
  cut(): void;
  /** Neither way moves any more, until `heal`; connections stay open. */
  freeze(): void;
  /** Forgets all rules, and goes on with what was held. What was lost stays lost. */
  heal(): void;
  close(): Promise<void>;
}

/** Starts a proxy on a loopback port: its own, or the one given. */
export async function proxyTo(target: { readonly host: string; readonly port: number }, ownPort = 0): Promise<FaultProxy> {
  const pairs = new Set<Pair>();
  const injected: Injected = {
    'lose-request': 0,
    'lose-reply': 0,
    'hang-request': 0,
    'hang-reply': 0,
    'hold-request': 0,
    'hold-reply': 0,
    reset: 0,
    cut: 0,
    delayed: 0,
    frozen: 0,
    refused: 0,
  };
  let rules: (ProxyRule & { left: number })[] = [];
  let delayMs = 0;
  let isCut = false;
  let isFrozen = false;

  const server = createServer({ noDelay: true }, (client) => {
    client.on('error', () => {});
    if (isCut) {
      injected.refused++;
      return void client.resetAndDestroy();
    }
    const upstream = new Socket();
    upstream.on('error', () => {});
    upstream.setNoDelay(true).connect(target.port, target.host);
    const pair: Pair = { client, upstream, requests: new Lane(upstream), replies: new Lane(client), breaksAtReply: false };
    pairs.add(pair);
    if (isFrozen) freezeOne(pair);
    client.on('data', (bytes) => onRequest(pair, bytes));
    upstream.on('data', (bytes) => onReply(pair, bytes));
    client.on('close', () => pair.requests.end());
    upstream.on('close', () => pair.replies.end());
    for (const socket of [client, upstream]) socket.on('close', () => client.destroyed && upstream.destroyed && pairs.delete(pair));
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(ownPort, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };

  function faultFor(bytes: Buffer): Fault | undefined {
    const rule = rules.find(({ when }) => when === undefined || (typeof when === 'string' ? bytes.includes(when) : when(bytes)));
    if (!rule) return undefined;
    rule.left--;
    if (rule.left === 0) rules = rules.filter((each) => each !== rule);
    injected[rule.fault]++;
    return rule.fault;
  }

  function onRequest(pair: Pair, bytes: Buffer): void {
    const { client, upstream, requests, replies } = pair;
    const fault = faultFor(bytes);
    if (fault === 'lose-request' || fault === 'reset') {
      upstream.destroy();
      return void (fault === 'reset' ? client.resetAndDestroy() : client.destroy());
    }
    if (fault === 'hang-request') requests.swallows = true;
    if (fault === 'hang-reply') replies.swallows = true;
    if (fault === 'hold-request') requests.holds = true;
    if (fault === 'hold-reply') replies.holds = true;
    if (fault === 'lose-reply') pair.breaksAtReply = true;
    requests.send(bytes);
  }

  function onReply({ client, replies, breaksAtReply }: Pair, bytes: Buffer): void {
    // What was sent still arrives: the way there ends after it.
    if (breaksAtReply) return void client.destroy();
    if (delayMs > 0) injected.delayed++;
    replies.send(bytes, delayMs);
  }

  function freezeOne({ client, upstream }: Pair): void {
    injected.frozen++;
    client.pause();
    upstream.pause();
  }

  return {
    host: '127.0.0.1',
    port,
    injected,
    next: (rule) => void rules.push({ ...rule, left: rule.times ?? 1 }),
    delayReplies: (ms) => void (delayMs = ms),
    cut() {
      isCut = true;
      for (const { client, upstream } of pairs) {
        injected.cut++;
        client.resetAndDestroy();
        upstream.destroy();
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
      for (const { client, upstream, requests, replies } of pairs) {
        client.resume();
        upstream.resume();
        requests.release();
        replies.release();
      }
    },
    async close() {
      for (const { client, upstream } of pairs) {
        client.destroy();
        upstream.destroy();
      }
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

interface Pair {
  readonly client: Socket;
  readonly upstream: Socket;
  readonly requests: Lane;
  readonly replies: Lane;
  breaksAtReply: boolean;
}

/** One way of a connection. Bytes never overtake each other. */
class Lane {
  readonly #to: Socket;
  #late: { readonly bytes: Buffer; dueAt: number }[] = [];
  #timer: NodeJS.Timeout | undefined;
  #ended = false;
  /** Whether what is sent is held until `release`. */
  holds = false;
  /** Whether what is sent is lost, and the end of the connection too. */
  swallows = false;

  constructor(to: Socket) {
    this.#to = to;
    to.once('close', () => clearTimeout(this.#timer));
  }

  send(bytes: Buffer, delayMs = 0): void {
    if (this.swallows) return;
    this.#late.push({ bytes, dueAt: performance.now() + delayMs });
    this.#go();
  }

  /** Everything that is late arrives now. */
  release(): void {
    this.holds = false;
    for (const each of this.#late) each.dueAt = 0;
    this.#go();
  }

  /** Ends the connection after what is late. */
  end(): void {
    this.#ended = true;
    this.#go();
  }

  #go(): void {
    clearTimeout(this.#timer);
    while (!this.holds && this.#late[0]) {
      const waitMs = this.#late[0].dueAt - performance.now();
      if (waitMs > 0) return void (this.#timer = setTimeout(() => this.#go(), waitMs));
      this.#to.write(this.#late.shift()!.bytes);
    }
    if (this.#ended && this.#late.length === 0 && !this.swallows) this.#to.destroySoon();
  }
}
