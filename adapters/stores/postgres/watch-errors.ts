import type { PgClient, PgResult } from './client.ts';

type Query = (...args: any[]) => any;

/** Knows whether a statement that others sent on a connection has failed. */
export interface Watch {
  /** Sends a statement that is not watched. */
  query(text: string, values?: readonly unknown[]): Promise<PgResult>;
  /** Whether one has failed, or may have, since it was last asked. */
  takeErrors(): boolean;
  end(): void;
}

/** Watches what handlers send, until `end`. The connection is the very object that the pool gave, because libraries know it by that. */
export function watchErrors(client: PgClient): Watch {
  const own = Object.getOwnPropertyDescriptor(client, 'query');
  const original = client.query as Query;
  let failed = false;
  const note = () => {
    failed = true;
  };

  const watched: Query = (...args) => {
    const last = args.length - 1;
    const callback = args[last];
    // Cursors and the like tell their errors to whoever reads them.
    if (typeof args[0]?.submit === 'function') note();
    if (typeof callback === 'function') {
      args[last] = (error: unknown, ...rest: unknown[]) => {
        if (error) note();
        callback(error, ...rest);
      };
    }
    const sent = original.apply(client, args);
    if (typeof sent?.then === 'function') sent.then(undefined, note);
    return sent;
  };
  client.query = watched;

  return {
    query: (text, values) => (values === undefined ? original.call(client, text) : original.call(client, text, values)),
    takeErrors() {
      const had = failed;
      failed = false;
      return had;
    },
    end() {
      if (own) Object.defineProperty(client, 'query', own);
      else delete (client as { query?: unknown }).query;
    },
  };
}
