import type { Clock } from '../../../src/clock.ts';
import { isDoubtful, type PgClient, type PgPool, type PgQueryable } from './client.ts';

/** A pool whose connections and answers are waited for so long and no longer: pg itself has no limit unless it is given one. */
export interface BoundedPool<Client> extends PgQueryable {
  /** Takes a connection. To be given back once, with an error to have it thrown away. */
  take(): Promise<{ readonly client: Client; giveBack(error?: Error): void }>;
}

export function boundedPool<Client extends PgClient>(pool: PgPool<Client>, clock: Clock, silenceMs: number): BoundedPool<Client> {
  shield(pool);
  async function take(): ReturnType<BoundedPool<Client>['take']> {
    const connecting = pool.connect();
    const client = await inTime(clock, silenceMs, 'a connection', connecting, () => {
      connecting.then((late) => late.release()).catch(() => {});
    });
    // What breaks the connection is told by the statement that meets it.
    const ignore = () => {};
    client.on?.('error', ignore);
    return {
      client,
      giveBack(error) {
        client.off?.('error', ignore);
        client.release(error);
      },
    };
  }

  return {
    take,
    async query(text, values) {
      const { client, giveBack } = await take();
      let broken: Error | undefined;
      try {
        return await patient(client, clock, silenceMs).query(text, values);
      } catch (error) {
        if (isDoubtful(error)) broken = new Error('The connection has failed', { cause: error });
        throw error;
      } finally {
        giveBack(broken);
      }
    },
  };
}

/** A connection that is cut off when it does not answer. */
export function patient(client: PgClient, clock: Clock, silenceMs: number): PgQueryable {
  return { query: (text, values) => inTime(clock, silenceMs, 'an answer', client.query(text, values), () => cutOff(client)) };
}

const shields = new WeakSet<object>();

/**
 * A new connection may break before whoever has asked for it can listen: the pool has stopped listening by then, and the server's farewell may come
 * with its welcome. It would end the process.
 */
function shield<Client extends PgClient>(pool: PgPool<Client>): void {
  if (shields.has(pool)) return;
  shields.add(pool);
  pool.on?.('connect', (client) => client.on?.('error', () => {}));
}

/** Ends a connection that does not answer, so that whatever waits for it fails. */
export function cutOff(client: PgClient): void {
  const { connection } = client as { readonly connection?: { readonly stream?: { destroy?(): void } } };
  // A pg client that pipelines waits for its answers before it ends.
  if (connection?.stream?.destroy) connection.stream.destroy();
  else void Promise.resolve(client.end?.()).catch(() => {});
}

async function inTime<T>(clock: Clock, limitMs: number, what: string, promise: Promise<T>, giveUp: () => void): Promise<T> {
  let cancel = () => {};
  const silence = new Promise<never>((_, reject) => {
    cancel = clock.after(limitMs, () => {
      giveUp();
      reject(new Error(`Expected ${what} of Postgres within ${limitMs} ms, got none`));
    });
  });
  try {
    return await Promise.race([promise, silence]);
  } finally {
    cancel();
  }
}
