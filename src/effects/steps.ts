import { expectOptions, refuseOption } from '../errors.ts';
import type { Context } from '../guarantee.ts';
import type { Message } from '../message.ts';
import { resultOf } from '../once.ts';
import type { CommonOptions, ReceiverOptionsBase } from '../options.ts';
import { createReceiver } from '../receiver.ts';
import type { DedupStore } from '../store.ts';
import { isJournal, type Journal } from './journal.ts';

/** Options of `steps`. */
export interface StepsOptions
  extends CommonOptions,
    Pick<ReceiverOptionsBase<unknown, unknown>, 'backoff' | 'handlerTimeoutMs' | 'retiredSteps'> {
  readonly store: DedupStore & Journal;
}

/** What the body of a run is given: what a handler gets, but for the message. */
export type StepsRun = Omit<Context<'fenced', never, true>, 'message'>;

/** Runs of steps in a worker that has no receiver. */
export interface Steps {
  /**
   * Runs `body` once for `id`, in steps: its result is stored and returned to every later run. If it fails it is forgotten and can be run
   * again, up to `maxAttempts` times, and what its steps have done is not done again; a `TerminalError` is final.
   *
   * @throws what `body` throws; ReceiverError `busy` (another worker runs it, `retryAfterMs` says when to come back), `parked`,
   * `invalid-key`, `store`, `codec`, `claim-lost`, `handler-timeout`, `stopped`, `nested`
   */
  run<Result>(id: string | readonly string[], body: (run: StepsRun) => Result): Promise<Awaited<Result>>;
  /** As `Receiver.stop`. */
  stop(options?: { readonly graceMs?: number }): Promise<{ readonly abandoned: number }>;
}

/**
 * Steps for a worker that you already have:
 *
 * ```ts
 * const orders = steps({ store, scope: 'fulfil' });
 * await orders.run(order.id, async (run) => {
 *   const charge = await run.step('charge', ({ key }) => gateway.charge(order, { idempotencyKey: key }));
 *   await run.step('mail', ({ key }) => mailer.send(order.email, charge.receipt, { key }));
 * });
 * ```
 *
 * @throws ReceiverError `invalid-option`
 */
export function steps(options: StepsOptions): Steps {
  expectOptions(options, 'an object');
  if (typeof options.store !== 'object' || options.store === null || !isJournal(options.store))
    refuseOption('store', 'a store that is a Journal', options.store);
  const receiver = createReceiver(
    {
      waitMs: 30_000,
      ...options,
      guarantee: 'fenced',
      key: (_: Message, call: unknown) => (call as Call).id,
      fingerprint: false,
      concurrency: Number.POSITIVE_INFINITY,
      results: true,
    },
    (call: Call, run) => call.body(run),
  );
  return {
    async run(id, body) {
      if (typeof body !== 'function') refuseOption('body', 'a function', body);
      const message: Message = { id: `${options.scope}()`, body: { id, body } satisfies Call, headers: {} };
      const [verdict] = await receiver.process([{ message }]);
      return resultOf(verdict!, options.scope) as never;
    },
    stop: (stopping) => receiver.stop(stopping),
  };
}

interface Call {
  readonly id: string | readonly string[];
  readonly body: (run: any) => unknown;
}
