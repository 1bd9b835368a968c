import {
  attribute,
  type createReceiver,
  type Delivery,
  type EventHooks,
  type once,
  type Receiver,
  ReceiverError,
  type Source,
  TerminalError,
  type Verdict,
} from '../../src/index.ts';
import type { DedupStore } from '../../src/store.ts';
import type { Kernel } from '../../src/testing/virtual/kernel.ts';
import type { Consumer, SimBroker } from './broker.ts';
import type { Chance, Fault, Odds } from './chance.ts';
import { handlerOf } from './handler.ts';
import type { Ledger } from './ledger.ts';
import { type CallFault, Link, Server } from './link.ts';
import type { Scenario } from './scenario.ts';
import type { SimStore } from './stores.ts';
import type { Watch } from './watch.ts';
import type { Worker } from './worker.ts';

export const scope = 'simulated';

/** What the parts of the code under test come from. A zoo puts a bug into one of them. */
export interface Code {
  readonly createReceiver: typeof createReceiver;
  readonly once: typeof once;
}

export interface Parts {
  readonly kernel: Kernel;
  readonly chance: Chance;
  readonly scenario: Scenario;
  readonly store: SimStore;
  readonly broker: SimBroker;
  readonly ledger: Ledger;
  readonly watch: Watch;
  readonly code: Code;
  /** Told of each verdict of a worker that is alive. */
  readonly onVerdict: (worker: Worker, messageId: string, verdict: Verdict) => void;
}

/** What is under test in one worker: the real receiver, or a real `once` function, on simulated connections. */
export function consumerIn(parts: Parts, worker: Worker): Consumer {
  const { kernel, chance, scenario, store, broker, watch } = parts;
  const onFault = (fault: Fault, op: string) => watch.fault(worker.name, fault, op);
  const [pauseMs, slowMs] = [scenario.visibilityMs * 2, scenario.leaseMs * 1.5];
  const linkTo = (server: Server, odds: Odds<CallFault>, hangMs: number | undefined) =>
    new Link({ kernel, chance, worker, server, odds, pauseMs, slowMs, hangMs, onFault });
  const hangMs = scenario.way === 'transactional' ? 3_000 : undefined;
  const verbs = linkTo(store.server, scenario.odds.store, hangMs);
  const statements = linkTo(
    store.server,
    scenario.odds.store.filter(([kind]) => kind !== 'resent'),
    hangMs,
  );
  const resource = linkTo(new Server('resource'), scenario.odds.resource, 3_000);
  const handler = handlerOf(scenario, { ...parts, worker, link: resource, kindOf: (messageId) => broker.find(messageId).sent.kind });
  const client = broker.dress?.(worker, store.client(worker, verbs, statements)) ?? store.client(worker, verbs, statements);
  if (!broker.callee) {
    return broker.consumer(
      worker,
      linkTo(broker.server, scenario.odds.broker, broker.requestTimeoutMs),
      receiverIn(parts, worker, client, handler),
    );
  }
  return broker.callee(worker, {
    call: onceIn(parts, worker, client as DedupStore, handler),
    running: () => [...parts.ledger.running].filter((run) => run.worker === worker).length,
  });
}

type Handler = ReturnType<typeof handlerOf>;
type Payload = Parameters<Handler>[0];

function settingsOf({ scenario, watch }: Parts, worker: Worker) {
  const on: EventHooks = {
    duplicate: ({ kind }) => watch.count(kind === 'batch' ? 'batchCopies' : 'duplicates'),
    claimed: ({ orphaned }) => orphaned && watch.count('orphans'),
    busy: () => watch.count('busy'),
    fenced: () => watch.count('fenced'),
    mismatch: () => watch.count('mismatches'),
    released: ({ reason }) => reason === 'order' && watch.count('groupStops'),
  };
  return {
    scope,
    world: worker,
    leaseMs: scenario.leaseMs,
    retentionMs: scenario.retentionMs,
    storeTimeoutMs: scenario.storeTimeoutMs,
    handlerTimeoutMs: scenario.handlerTimeoutMs,
    waitMs: scenario.waitMs,
    maxAttempts: scenario.maxAttempts,
    cacheSize: scenario.cacheSize,
    purgeEveryMs: 10_000,
    on,
  };
}

function receiverIn(parts: Parts, worker: Worker, store: ReturnType<SimStore['client']>, handler: Handler): Receiver {
  const { scenario, code, onVerdict } = parts;
  const receiver = code.createReceiver(
    {
      ...settingsOf(parts, worker),
      key: attribute('id'),
      // Its type follows from the way, which is decided at run time.
      store: store as DedupStore,
      guarantee: scenario.way as 'leased',
      concurrency: scenario.concurrency,
      groupSize: scenario.groupSize,
      results: scenario.results,
      backoff: { firstMs: 200, maxMs: 4_000 },
    },
    handler,
  ) as Receiver;
  // The receiver tells sources apart by identity.
  const sources = new WeakMap<Source<any>, Source<any>>();
  function judging<D extends Delivery>(source: Source<D> = {}): Source<D> {
    const known = sources.get(source);
    if (known) return known;
    const watched: Source<D> = {
      ...source,
      settled(delivery, verdict) {
        if (worker.alive) onVerdict(worker, delivery.message.id, verdict);
        source.settled?.(delivery, verdict);
      },
    };
    sources.set(source, watched);
    return watched;
  }
  return { ...receiver, process: (deliveries, source) => receiver.process(deliveries, judging(source)) };
}

/** A function that is called with the id of the call, which stands in for the message. It learns nothing of its claim. */
function onceIn(parts: Parts, worker: Worker, store: DedupStore, handler: Handler): (payload: Payload, callId: string) => Promise<unknown> {
  const { code, onVerdict } = parts;
  const { signal } = new AbortController();
  const charge = code.once(
    {
      ...settingsOf(parts, worker),
      store,
      key: ({ id }: Payload, _callId: string) => id,
      fingerprint: ({ payload }: Payload, _callId: string) => payload,
    },
    (payload: Payload, callId: string) => handler(payload, { message: { id: callId }, signal, attempt: 0 }),
  );
  return async (payload, callId) => {
    try {
      const result = await charge(payload, callId);
      if (worker.alive) onVerdict(worker, callId, { action: 'ack', outcome: 'completed', result });
      return result;
    } catch (error) {
      const reason = finalReason(error);
      if (reason && worker.alive) onVerdict(worker, callId, { action: 'dead-letter', reason, detail: '', attempts: 0 });
      throw error;
    }
  };
}

/** Why a caller of a `once` function need not call again. */
export function finalReason(error: unknown): (Verdict & { action: 'dead-letter' })['reason'] | undefined {
  if (error instanceof TerminalError) return 'terminal';
  if (!(error instanceof ReceiverError)) return undefined;
  if (error.code === 'mismatch' || error.code === 'invalid-key') return error.code;
  if (error.code === 'parked') return error.message.includes('(terminal)') ? 'terminal' : 'max-attempts';
  return undefined;
}
