import { completedCache } from './cache.ts';
import { endsWithin, type World } from './clock.ts';
import type { Core } from './core.ts';
import type { Journal } from './effects/journal.ts';
import { expectNumber, ReceiverError, refuseOption } from './errors.ts';
import { emitter, teller } from './events.ts';
import { gate } from './gate.ts';
import type { Context, DefaultGuarantee, Guarantee, GuaranteeOf, HasSteps, TxOf } from './guarantee.ts';
import { type GuardedStore, guardedStore } from './guarded-store.ts';
import type { AnyHandler } from './handler.ts';
import { identifier } from './identity.ts';
import { isInside } from './inside.ts';
import { jobsOf, lanesOf } from './job.ts';
import { leases } from './lease.ts';
import { leasedWay } from './leased.ts';
import { limiter } from './limiter.ts';
import type { Delivery, Message, Source, Verdict } from './message.ts';
import { isDedupStore, isTransactionalStore, type ReceiverOptions, receiverSettings } from './options.ts';
import type { DedupStore, Key, TransactionalStore } from './store.ts';
import { transactionalWay } from './transactional.ts';

/** An idempotent receiver around a handler. Broker adapters give it deliveries and obey its verdicts. */
export interface Receiver<G extends Guarantee = Guarantee> {
  readonly guarantee: G;
  readonly scope: string;
  readonly leaseMs: number;
  readonly retentionMs: number;
  /** Time and chance, for broker adapters too: `clock.now()` is what `Delivery.heldUntil` is measured in. */
  readonly world: World;
  /**
   * Handles deliveries, and answers in the order given. Never rejects for what a handler, a message or the store does: that is
   * what verdicts are for. Deliveries of concurrent calls share the receiver's `concurrency`.
   *
   * @throws ReceiverError `nested` if it is called from inside a running handler of this receiver, which could wait for itself; nothing is
   *   done then. With `concurrency: Infinity` only the message that is being handled is refused.
   */
  process<D extends Delivery>(deliveries: readonly D[], source?: Source<D>): Promise<Verdict[]>;
  /**
   * Resolves with true as soon as it makes sense to fetch more: at once, or after a pause while the store is down. False if `signal`
   * was aborted or the receiver has been stopped.
   */
  ready(signal?: AbortSignal): Promise<boolean>;
  /**
   * Broker adapters call this at start with the longest time after which the broker can still redeliver.
   * @throws ReceiverError `retention-too-short` if the store would forget sooner. `where` says which settings the time comes from.
   */
  requireRetention(horizonMs: number, where: string): void;
  /** The key under which a message is remembered, for `StoreAdmin`. @throws ReceiverError `invalid-key`, or what decoding throws */
  keyOf(message: Message): Key;
  /**
   * Takes no new work, gives back what has not been started, lets running handlers finish for `graceMs` (default 10,000), then
   * aborts their signals and waits a little more. Resolves when nothing is left: no handler, no claim, no timer. `abandoned` counts
   * deliveries whose handlers ignored their signal, and those that wait behind one in a transaction; their claims end with their leases.
   */
  stop(options?: { readonly graceMs?: number }): Promise<{ readonly abandoned: number }>;
}

/** How long `stop` waits for handlers after it has aborted their signals. */
const lastWaitMs = 2_000;
const purgeBatch = 500;

/**
 * Makes a receiver: each message takes effect once, however often it is delivered.
 *
 * ```ts
 * const receiver = createReceiver({ scope: 'billing', key: header('message-id'), schema: Order, store: sqliteStore(db) },
 *   async (order, ctx) => { ctx.tx.prepare('insert into charges values (?, ?)').run(order.id, order.amount); });
 * ```
 *
 * @throws ReceiverError `invalid-option`
 */
export function createReceiver<
  Store extends DedupStore | TransactionalStore<any>,
  Payload = unknown,
  G extends Guarantee = DefaultGuarantee<Store>,
  Name extends string = never,
  Aside extends (DedupStore & Journal) | undefined = undefined,
>(
  options: { readonly store: Store; readonly journal?: Aside } & ReceiverOptions<Store, Payload, G, Name>,
  handler: (payload: Payload, context: Context<G, TxOf<Store>, HasSteps<Store, G, Aside>, Name>) => unknown,
): Receiver<G & GuaranteeOf<Store>> {
  const settings = receiverSettings(options as unknown as ReceiverOptions<unknown, unknown, Guarantee>);
  if (typeof handler !== 'function') refuseOption('handler', 'a function', handler);
  return start(settings, options.store, handler as AnyHandler, identifier({ ...settings, fingerprint: options.fingerprint })) as Receiver<
    G & GuaranteeOf<Store>
  >;
}

function start(
  settings: ReturnType<typeof receiverSettings>,
  anyStore: unknown,
  handler: AnyHandler,
  identify: ReturnType<typeof identifier>,
): Receiver {
  const { world, scope, guarantee, leaseMs, retentionMs } = settings;
  const { clock, random } = world;
  const emit = emitter(settings.on);
  const tell = teller(scope, settings.on, emit);
  const stopping = new AbortController();
  const stopped = new AbortController();
  // Calls that `stop` gives up are no news of the store.
  const storeGate = gate(world, scope, (name, event) => stopped.signal.aborted || emit(name, event));
  const active = new Set<Promise<unknown>>();
  const store = isDedupStore(anyStore) ? guardedStore(anyStore, storeGate, settings) : undefined;
  const journal = settings.journal && guardedStore(settings.journal, storeGate, settings);
  const self = {};
  const core: Core = {
    settings,
    handler,
    tell,
    gate: storeGate,
    store,
    journal,
    cache: completedCache(clock, { size: settings.cacheSize, retentionMs }),
    leases: leases({ clock, leaseMs, extend: (holds) => (journal ?? store!).extend(holds) }),
    limiter: limiter(settings.concurrency),
    suspects: limiter(1),
    loose: new Set(),
    stopping: stopping.signal,
    stopped: stopped.signal,
  };
  const way =
    guarantee === 'transactional' && isTransactionalStore(anyStore) ? transactionalWay(core, self, anyStore) : leasedWay(core, self);
  // A call from inside a handler waits for a place, or for a transaction, that its own caller may hold.
  const sharesPlaces = guarantee === 'transactional' || settings.concurrency !== Number.POSITIVE_INFINITY;
  let purgedAt = clock.now();
  let unanswered = 0;

  async function process(deliveries: readonly Delivery[], source: Source): Promise<Verdict[]> {
    const jobs = jobsOf(deliveries, source, { identify, token: () => random.token() });
    if (sharesPlaces ? jobs.length > 0 && isInside(self) : jobs.some(({ key }) => isInside(self, key))) {
      throw new ReceiverError('nested', `A handler of ${JSON.stringify(scope)} called its own receiver and would wait for itself`);
    }
    const now = clock.now();
    for (const job of jobs) {
      tell('received', job, {});
      if (job.preset?.action === 'dead-letter') tell('parked', job, job.preset);
      if (!job.preset) job.lease = core.leases.start(job.delivery, job.source, now);
      const known = core.cache.get(job.key, job.fingerprint);
      if (known) job.answer = { state: 'completed', result: known.result, ageMs: clock.now() - known.at };
    }
    await way(lanesOf(jobs));
    purgeByTheWay();
    return jobs.map((job) => job.verdict!);
  }

  /** Purging rides on other work, so that an idle receiver has no timer. */
  function purgeByTheWay(): void {
    if (clock.now() - purgedAt < settings.purgeEveryMs || stopping.signal.aborted) return;
    purgedAt = clock.now();
    for (const each of [store, journal]) if (each) void track(purge(each).catch(() => {}));
  }

  async function purge(each: GuardedStore): Promise<void> {
    while (!stopping.signal.aborted && (await each.purge(purgeBatch)) === purgeBatch);
  }

  function track<T>(work: Promise<T>): Promise<T> {
    active.add(work);
    void work.catch(() => {}).finally(() => active.delete(work));
    return work;
  }

  function drained(ms: number): Promise<boolean> {
    return endsWithin(clock, ms, Promise.allSettled([...active]));
  }

  async function stopOnce(graceMs: number): Promise<{ abandoned: number }> {
    stopping.abort();
    core.limiter.close();
    core.suspects.close();
    if (!(await drained(graceMs))) {
      core.leases.abortAll(new ReceiverError('stopped', `The receiver stopped, and the handler has not returned within ${graceMs} ms`));
      stopped.abort();
      await drained(lastWaitMs);
    }
    stopped.abort();
    core.leases.endAll();
    store?.close();
    journal?.close();
    // Those who waited for the store have their verdicts now.
    await drained(0);
    return { abandoned: core.loose.size + unanswered };
  }

  let stopResult: Promise<{ abandoned: number }> | undefined;

  return {
    guarantee,
    scope,
    leaseMs,
    retentionMs,
    world,
    keyOf: (message) => identify(message).key,
    process(deliveries, source = {}) {
      if (!Array.isArray(deliveries)) refuseOption('deliveries', 'an array', deliveries);
      const wrong = deliveries.findIndex((each) => !isDelivery(each));
      // What is wrong is the call: as poison, messages would be given up for it.
      if (wrong >= 0) refuseOption(`deliveries[${wrong}]`, '`{ message: { id, body, headers } }`', deliveries[wrong]);
      if (stopping.signal.aborted)
        return Promise.resolve(deliveries.map(() => ({ action: 'retry', reason: 'stopped', afterMs: 0 }) as const));
      unanswered += deliveries.length;
      return track(process(deliveries, source as Source).finally(() => (unanswered -= deliveries.length)));
    },
    ready: (signal) => storeGate.open(stopping.signal, ...(signal ? [signal] : [])),
    requireRetention(horizonMs, where) {
      if (retentionMs >= horizonMs) return;
      throw new ReceiverError(
        'retention-too-short',
        `Expected \`retentionMs\` to be at least ${horizonMs} (${where}), got \`${retentionMs}\`: a message that is redelivered later would be handled again`,
      );
    },
    stop(options) {
      stopResult ??= stopOnce(expectNumber('graceMs', options?.graceMs ?? 10_000, { atLeast: 0 }));
      return stopResult;
    },
  };
}

function isDelivery(delivery: Delivery | null | undefined): boolean {
  const message: Partial<Message> | null | undefined = delivery?.message;
  return typeof message?.headers === 'object' && message.headers !== null;
}
