import type { Clock } from '../../../src/clock.ts';
import { ReceiverError } from '../../../src/errors.ts';
import { isConflict, type PgClient, type PgResult, sqlState } from './client.ts';
import { cutOff } from './pool.ts';

type Method = (...args: any[]) => any;

/** The connection of a unit. One that is silent for too long is cut off, and whatever waits for it fails. */
export interface Line<Client> {
  /** Several statements are answered by several results. */
  send(text: string): Promise<PgResult | readonly PgResult[]>;
  /** Statements need not wait for the answer to the one before. */
  readonly pipelines: boolean;
  /** The connection for one handler. */
  lend(): Loan<Client>;
  /** Leaves no timer behind. */
  close(): void;
}

/** A connection as a handler has it: refused when the handler has ended, because it serves others by then, and not to be released by it. */
export interface Loan<Client> {
  readonly tx: Client;
  /** Something was sent. */
  used(): boolean;
  /** A statement has failed, or may have. */
  failed(): boolean;
  /** One of them has, because of what another transaction did. */
  crowded(): boolean;
  end(): void;
}

export function lineOf<Client extends PgClient>(client: Client, clock: Clock, silenceMs: number): Line<Client> {
  let waiting = 0;
  /** When something was sent or answered for the last time. */
  let heardAt = 0;
  let cancel: (() => void) | undefined;

  // One timer that looks again when it is over: setting and clearing one for each statement costs as much as the rest of this file.
  function listen(change: 1 | -1): void {
    waiting += change;
    heardAt = clock.now();
    if (waiting > 0) cancel ??= clock.after(silenceMs, look);
  }

  function look(): void {
    cancel = undefined;
    if (waiting === 0) return;
    const restMs = heardAt + silenceMs - clock.now();
    if (restMs <= 0) cutOff(client);
    else cancel = clock.after(restMs, look);
  }

  function watched<T>(sent: Promise<T>, failed: (error: unknown) => void = () => {}): Promise<T> {
    listen(1);
    sent.then(
      () => listen(-1),
      (error: unknown) => {
        listen(-1);
        failed(error);
      },
    );
    return sent;
  }

  function lend(): Loan<Client> {
    let used = false;
    let failed = false;
    let crowded = false;
    let ended = false;
    const fail = (error?: unknown) => {
      failed = true;
      crowded ||= isConflict(error) || sqlState(error) === '55P03';
    };

    function query(method: Method, args: any[]): unknown {
      const last = args.length - 1;
      const callback = args[last];
      // Cursors and the like tell their errors to whoever reads them.
      if (typeof args[0]?.submit === 'function') fail();
      if (typeof callback === 'function') {
        args[last] = (error: unknown, ...rest: unknown[]) => {
          if (error) fail(error);
          callback(error, ...rest);
        };
      }
      const sent = method.apply(client, args);
      if (typeof sent?.then === 'function') void watched(sent as Promise<unknown>, fail);
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

    /** What nearly every handler calls, made once. */
    const ask = (...args: any[]): unknown => {
      if (ended) return Promise.reject(refusal('query'));
      used = true;
      return query(client.query as Method, args);
    };
    const tx = new Proxy(client, {
      get(target, property) {
        if (property === 'query') return ask;
        const value = Reflect.get(target, property, target) as unknown;
        if (typeof value !== 'function' || property === 'constructor') return value;
        return (...args: any[]): unknown => {
          const refused = refusal(property);
          if (refused) return Promise.reject(refused);
          used = true;
          return value.apply(target, args);
        };
      },
    });
    return {
      tx,
      used: () => used,
      failed: () => failed,
      crowded: () => crowded,
      end() {
        ended = true;
      },
    };
  }

  return {
    send: (text) => watched(client.query(text)),
    pipelines: (client as { readonly pipeline?: unknown }).pipeline === true,
    lend,
    close: () => cancel?.(),
  };
}
