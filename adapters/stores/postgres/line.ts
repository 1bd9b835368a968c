import type { Clock } from '../../../src/clock.ts';
import { ReceiverError } from '../../../src/errors.ts';
import type { PgClient, PgResult } from './client.ts';
import { cutOff } from './pool.ts';

type Method = (...args: any[]) => any;

/** The connection of a unit. One that is silent for too long is cut off, and whatever waits for it fails. */
export interface Line<Client> {
  send(text: string, values?: readonly unknown[]): Promise<PgResult>;
  /** Statements need not wait for the answer to the one before. */
  readonly pipelines: boolean;
  /** The connection for one handler. */
  lend(): Loan<Client>;
}

/** A connection as a handler has it: refused when the handler has ended, because it serves others by then, and not to be released by it. */
export interface Loan<Client> {
  readonly tx: Client;
  /** Something was sent. */
  used(): boolean;
  /** A statement has failed, or may have. */
  failed(): boolean;
  end(): void;
}

export function lineOf<Client extends PgClient>(client: Client, clock: Clock, silenceMs: number): Line<Client> {
  let waiting = 0;
  let cancel = () => {};

  /** Starts to listen anew: something was sent, or answered. */
  function listen(change: 1 | -1): void {
    waiting += change;
    cancel();
    cancel = waiting > 0 ? clock.after(silenceMs, () => cutOff(client)) : () => {};
  }

  function watched<T>(sent: Promise<T>): Promise<T> {
    listen(1);
    const answered = () => listen(-1);
    sent.then(answered, answered);
    return sent;
  }

  function lend(): Loan<Client> {
    let used = false;
    let failed = false;
    let ended = false;
    const fail = () => {
      failed = true;
    };

    function query(method: Method, args: any[]): unknown {
      const last = args.length - 1;
      const callback = args[last];
      // Cursors and the like tell their errors to whoever reads them.
      if (typeof args[0]?.submit === 'function') fail();
      if (typeof callback === 'function') {
        args[last] = (error: unknown, ...rest: unknown[]) => {
          if (error) fail();
          callback(error, ...rest);
        };
      }
      const sent = method.apply(client, args);
      if (typeof sent?.then === 'function') watched(sent as Promise<unknown>).then(undefined, fail);
      return sent;
    }

    function refusal(property: PropertyKey): ReceiverError | undefined {
      if (property === 'release' || property === 'end')
        return new ReceiverError(
          'store',
          `Expected a handler to leave the connection of its transaction alone, but it called \`${property}\``,
        );
      if (!ended) return undefined;
      return new ReceiverError(
        'store',
        'Expected a handler to use `tx` only while it runs, but it has ended: it did not wait for all it started',
      );
    }

    const tx = new Proxy(client, {
      get(target, property) {
        const value = Reflect.get(target, property, target) as unknown;
        if (typeof value !== 'function' || property === 'constructor') return value;
        return (...args: any[]): unknown => {
          const refused = refusal(property);
          if (refused) return Promise.reject(refused);
          used = true;
          return property === 'query' ? query(value as Method, args) : value.apply(target, args);
        };
      },
    });
    return {
      tx,
      used: () => used,
      failed: () => failed,
      end() {
        ended = true;
      },
    };
  }

  return {
    send: (text, values) => watched(client.query(text, values)),
    pipelines: (client as { readonly pipeline?: unknown }).pipeline === true,
    lend,
  };
}
