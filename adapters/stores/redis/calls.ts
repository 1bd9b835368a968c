import { ReceiverError } from '../../../src/errors.ts';
import { type Argument, type Connection, storeError } from './client.ts';
import type { Script } from './scripts.ts';

/** What to wait for before a call is answered. */
export interface WaitOptions {
  /** So many replicas must have received what was written. */
  readonly replicas: number;
  /** It must be on disk, on the primary and on so many replicas. Needs Redis 7.2 and an append-only file. Default: false. */
  readonly fsync?: boolean;
  /** Longest wait, in milliseconds. The connection is blocked meanwhile, for other calls too. */
  readonly timeoutMs: number;
}

/** Runs a script on a shard, named by the prefix of its keys. `doing` is for the error, if it fails. */
export type Run = (script: Script, shard: string, args: readonly Argument[], doing: string) => Promise<unknown>;

/** `check` runs before the first call, and again when a server does not know our scripts: it is another one, or has restarted. */
export function runner({ send }: Connection, check: () => Promise<void>, wait: WaitOptions | undefined): Run {
  let checked: Promise<void> | undefined;

  async function ready(): Promise<void> {
    checked ??= check();
    const checking = checked;
    try {
      await checking;
    } catch (error) {
      if (checked === checking) checked = undefined;
      throw error;
    }
  }

  /** Everything is sent in one go, so that it goes one after another on one connection. */
  async function evaluate(command: string, script: string, keysAndArgs: readonly Argument[]): Promise<unknown> {
    if (!wait) return send(command, [script, ...keysAndArgs]);
    const { replicas, fsync, timeoutMs } = wait;
    // WAIT is about what its own connection has written. Clients reconnect and send again by themselves, and on a new connection it
    // would wait for nothing; so the connection is asked for its name before and after.
    const [before, result, copies, after] = await Promise.all([
      send('client', ['info']),
      send(command, [script, ...keysAndArgs]),
      fsync ? send('waitaof', [1, replicas, timeoutMs]) : send('wait', [replicas, timeoutMs]),
      send('client', ['info']),
    ]);
    if (nameOf(before) !== nameOf(after)) {
      throw new ReceiverError(
        'store',
        'Expected one connection for a write and its WAIT, but it was lost in between: the outcome is unknown',
      );
    }
    const [local, remote] = fsync ? (copies as unknown[]).map(Number) : [1, Number(copies)];
    if (!(local! >= 1 && remote! >= replicas)) {
      const where = fsync ? 'the disk of the primary and ' : '';
      const got = fsync ? `${local} and ${remote}` : remote;
      throw new ReceiverError(
        'store',
        `Expected ${where}${replicas} replicas to have it within ${timeoutMs} ms, got ${got}: the outcome is unknown`,
      );
    }
    return result;
  }

  return async ({ sha, text }, shard, args, doing) => {
    // `absent` never exists. While Redis Cluster moves a slot, it answers TRYAGAIN to a call that names a key which is not there,
    // instead of running a script that would take for absent what is still, or already, on the other node.
    const keysAndArgs = [2, `${shard}fence`, `${shard}absent`, ...args];
    try {
      await ready();
      const known = checked;
      try {
        return await evaluate('evalsha', sha, keysAndArgs);
      } catch (error) {
        if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error;
        if (checked === known) checked = undefined;
        await ready();
        return await evaluate('eval', text, keysAndArgs);
      }
    } catch (cause) {
      throw storeError(doing, cause);
    }
  };
}

function nameOf(info: unknown): string {
  const name = /\bid=\d+ addr=\S+/.exec(String(info))?.[0];
  if (!name) throw new ReceiverError('store', `Expected CLIENT INFO to name the connection, got ${JSON.stringify(info)}`);
  return name;
}
