import { ReceiverError, refuseOption } from '../../../src/errors.ts';

/** One argument of a command. */
export type Argument = string | number | Buffer;

/** The part of an ioredis client that the store uses: `Redis`, or `Cluster`, which has `nodes` as well. */
export interface IoredisClient {
  call(command: string, args: Argument[]): Promise<unknown>;
  /** Of a `Cluster`: its nodes, each a client. */
  nodes?(role: 'master'): readonly Pick<IoredisClient, 'call'>[];
  readonly options?: { readonly keyPrefix?: string | undefined };
}

/** The part of a node-redis client that the store uses: what `createClient` or `createClientPool` gives. */
export interface NodeRedisClient {
  sendCommand(args: (string | Buffer)[]): Promise<unknown>;
}

/** A ready client. The store neither connects nor closes it. */
export type RedisClient = IoredisClient | NodeRedisClient;

/** Sends one command. Of a cluster, it goes to the node of its first key. */
export type Send = (command: string, args: readonly Argument[]) => Promise<unknown>;

/** A client, whichever it is. */
export interface Connection {
  readonly isCluster: boolean;
  /** Calls that follow one another may go over different connections. */
  readonly isPool: boolean;
  readonly send: Send;
  /** The servers that accept writes. */
  primaries(): readonly Send[];
}

/** @throws ReceiverError `invalid-option` if it is not a client that the store can use */
export function connect(client: RedisClient): Connection {
  if (typeof (client as IoredisClient | undefined)?.call === 'function') {
    const ioredis = client as IoredisClient;
    // ioredis would put it before the keys of scripts, but not before those that scripts make.
    if (ioredis.options?.keyPrefix)
      refuseOption('client', "without ioredis's `keyPrefix`: use the store's `prefix`", ioredis.options.keyPrefix);
    const sender =
      (node: Pick<IoredisClient, 'call'>): Send =>
      (command, args) =>
        node.call(command, args as Argument[]);
    const send = sender(ioredis);
    const isCluster = typeof ioredis.nodes === 'function';
    return { isCluster, isPool: false, send, primaries: () => (isCluster ? ioredis.nodes!('master').map(sender) : [send]) };
  }
  const other = client as (NodeRedisClient & { nodeClient?: unknown; getMasterNode?: unknown; execute?: unknown }) | undefined;
  // The `sendCommand` of node-redis's clusters and sentinels wants other arguments first.
  if (typeof other?.sendCommand !== 'function' || other.nodeClient || other.getMasterNode) {
    refuseOption(
      'client',
      'an ioredis client or cluster, or a single client of node-redis (for clusters and sentinels use ioredis)',
      client,
    );
  }
  const send: Send = (command, args) =>
    other.sendCommand([command, ...args.map((each) => (typeof each === 'number' ? String(each) : each))]);
  return { isCluster: false, isPool: typeof other.execute === 'function', send, primaries: () => [send] };
}

/** A `ReceiverError` of code `store` for what Redis or its client answered; errors of this library pass as they are. */
export function storeError(doing: string, cause: unknown): ReceiverError {
  if (cause instanceof ReceiverError) return cause;
  // ioredis adds the command with its arguments, which are tokens and results: nothing for logs.
  const last = (cause as { lastNodeError?: unknown } | undefined)?.lastNodeError;
  for (const error of [cause, last]) if (error instanceof Error && 'command' in error) delete error.command;
  return new ReceiverError('store', `Redis failed while ${doing}: ${cause instanceof Error ? cause.message : cause}`, { cause });
}
