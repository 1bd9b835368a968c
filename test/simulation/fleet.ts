import { attribute, type createReceiver, type Delivery, type Receiver, type Source, type Verdict } from '../../src/index.ts';
import type { DedupStore } from '../../src/store.ts';
import type { SimBroker } from './broker.ts';
import type { Chance } from './chance.ts';
import { handlerOf } from './handler.ts';
import type { Kernel } from './kernel.ts';
import type { Ledger } from './ledger.ts';
import { Link, Server } from './link.ts';
import type { Scenario } from './scenario.ts';
import type { SimStore } from './stores.ts';
import type { Watch } from './watch.ts';
import { Worker } from './worker.ts';

export const scope = 'simulated';

/** What the parts of the code under test come from. A zoo puts a bug into one of them. */
export interface Code {
  readonly createReceiver: typeof createReceiver;
}

/** What the checks are told by the fleet. */
export interface FleetHooks {
  verdict(worker: Worker, messageId: string, verdict: Verdict): void;
  stopped(worker: Worker, stopAt: number, abandoned: number): void;
}

interface Parts {
  readonly kernel: Kernel;
  readonly chance: Chance;
  readonly scenario: Scenario;
  readonly store: SimStore;
  readonly broker: SimBroker;
  readonly ledger: Ledger;
  readonly watch: Watch;
  readonly hooks: FleetHooks;
  readonly code: Code;
}

/** All workers: each a process with a receiver and a consumer in it, started again when it has died. */
export class Fleet {
  readonly members: Member[];
  /** Every process that ever ran. */
  readonly workers: Worker[] = [];
  readonly parts: Parts;

  constructor(names: readonly string[], parts: Parts) {
    this.parts = parts;
    this.members = names.map((name) => new Member(this, name));
  }

  start(): void {
    for (const member of this.members) member.start();
  }

  /** Stops everything for good. */
  close(): void {
    for (const member of this.members) member.close();
  }

  get closed(): boolean {
    return this.members.every(({ worker }) => !worker?.alive);
  }
}

/** How often each worker is asked whether something happens to it by itself. */
const lifeBeatMs = 5_000;

class Member {
  readonly name: string;
  worker: Worker | undefined;
  #stop: ((graceMs: number) => void) | undefined;
  #closing = false;
  #incarnation = 0;
  readonly #fleet: Fleet;

  constructor(fleet: Fleet, name: string) {
    this.#fleet = fleet;
    this.name = name;
  }

  start(): void {
    if (this.#closing) return;
    const { kernel, chance, scenario, store, broker, ledger, watch, hooks, code } = this.#fleet.parts;
    const name = `${this.name}.${++this.#incarnation}`;
    const stream = chance.stream(name);
    const skewMs = Math.round((stream.next() * 2 - 1) * scenario.skewMs);
    const worker = new Worker(kernel, name, stream, skewMs, 1 + (stream.next() * 2 - 1) * scenario.drift);
    this.worker = worker;
    this.#fleet.workers.push(worker);
    watch.tell(name, () => 'starts');
    const common = {
      kernel,
      chance,
      worker,
      pauseMs: scenario.visibilityMs * 2,
      slowMs: scenario.leaseMs * 1.5,
      onFault: (fault: Parameters<Watch['fault']>[1], op: string) => watch.fault(name, fault, op),
    };
    const hangMs = scenario.way === 'transactional' ? { hangMs: 3_000 } : {};
    const storeLink = new Link({ ...common, ...hangMs, server: store.server, odds: scenario.odds.store });
    const statements = new Link({
      ...common,
      ...hangMs,
      server: store.server,
      odds: scenario.odds.store.filter(([kind]) => kind !== 'resent'),
    });
    const brokerLink = new Link({ ...common, server: broker.server, odds: scenario.odds.broker });
    const resource = new Link({ ...common, server: new Server('resource'), odds: scenario.odds.resource, hangMs: 3_000 });
    const kindOf = (messageId: string) => broker.find(messageId).sent.kind;
    const receiver = code.createReceiver(
      {
        scope,
        key: attribute('id'),
        // Its type follows from the way, which is decided at run time.
        store: store.client(worker, storeLink, statements) as DedupStore,
        guarantee: scenario.way as 'leased',
        world: worker,
        leaseMs: scenario.leaseMs,
        retentionMs: scenario.retentionMs,
        storeTimeoutMs: scenario.storeTimeoutMs,
        handlerTimeoutMs: scenario.handlerTimeoutMs,
        waitMs: scenario.waitMs,
        maxAttempts: scenario.maxAttempts,
        concurrency: scenario.concurrency,
        cacheSize: scenario.cacheSize,
        groupSize: scenario.groupSize,
        results: scenario.results,
        backoff: { firstMs: 200, maxMs: 4_000 },
        purgeEveryMs: 10_000,
        on: {
          duplicate: ({ kind }) => watch.count(kind === 'batch' ? 'batchCopies' : 'duplicates'),
          claimed: ({ orphaned }) => orphaned && watch.count('orphans'),
          busy: () => watch.count('busy'),
          fenced: () => watch.count('fenced'),
          mismatch: () => watch.count('mismatches'),
          released: ({ reason }) => reason === 'order' && watch.count('groupStops'),
        },
      },
      handlerOf(scenario, { kernel, chance, ledger, watch, worker, link: resource, kindOf }),
    ) as Receiver;
    const judged: Receiver = {
      ...receiver,
      process: (deliveries, source) => receiver.process(deliveries, judging(source)),
    };
    // The receiver tells sources apart by identity.
    const sources = new WeakMap<Source<any>, Source<any>>();
    function judging<D extends Delivery>(source: Source<D> = {}): Source<D> {
      const known = sources.get(source);
      if (known) return known;
      const watched: Source<D> = {
        ...source,
        settled(delivery, verdict) {
          if (worker.alive) hooks.verdict(worker, delivery.message.id, verdict);
          source.settled?.(delivery, verdict);
        },
      };
      sources.set(source, watched);
      return watched;
    }
    const consumer = broker.consumer(worker, brokerLink, judged);
    // A crash is followed by a new process, some time later.
    worker.onCrash.add(() => {
      watch.tell(name, () => 'is dead', true);
      watch.count('crashes');
      kernel.after(100 + stream.next() * scenario.leaseMs * 1.5, () => this.start());
    });
    let stopping = false;
    this.#stop = (graceMs) => {
      if (stopping || !worker.alive) return;
      stopping = true;
      const stopAt = kernel.now;
      watch.tell(name, () => `is told to stop within ${graceMs} ms`);
      // A worker that stands still does not stop either: its time begins when it is awake.
      let late = () => {};
      const inTime = () => {
        const leftMs = Math.max(stopAt, worker.pausedUntil) + graceMs + 60_000 - kernel.now;
        if (leftMs > 0) late = kernel.after(leftMs, inTime);
        else if (worker.alive) watch.violation('I10', `${name} does not stop`);
      };
      inTime();
      void consumer.stop({ graceMs }).then(({ abandoned }) => {
        late();
        if (!worker.alive) return;
        watch.tell(name, () => `has stopped, ${abandoned} abandoned`);
        watch.count('stops');
        watch.count('abandoned', abandoned);
        hooks.stopped(worker, stopAt, abandoned);
        worker.exit();
        if (!this.#closing) kernel.after(50 + stream.next() * 2_000, () => this.start());
      });
    };
    consumer.run().catch((error: unknown) => {
      if (worker.alive) watch.violation('broken', `${name}: the consumer gave up: ${String(error)}`);
    });
    this.#live(worker);
  }

  close(): void {
    this.#closing = true;
    if (this.worker?.alive) this.#stop?.(1_000);
  }

  /** What happens to a process by itself: a crash, a long pause, a deployment. */
  #live(worker: Worker): void {
    const { kernel, chance, scenario, watch } = this.#fleet.parts;
    if (scenario.odds.life.length === 0 && chance.faults.length === 0) return;
    const site = chance.site(`${worker.name} life`);
    const beat = () => {
      if (!worker.alive || chance.healed) return;
      const fault = site.draw(scenario.odds.life, kernel.now);
      if (fault) {
        kernel.after(fault.size * lifeBeatMs, () => {
          if (!worker.alive || chance.healed) return;
          watch.tell(worker.name, () => fault.kind, true);
          if (fault.kind === 'crash') {
            worker.crash();
          } else if (fault.kind === 'pause') {
            watch.count('pauses');
            worker.pause(fault.size * scenario.visibilityMs * 3);
          } else this.#stop?.(fault.size * 3_000);
        });
      }
      kernel.after(lifeBeatMs, beat);
    };
    beat();
  }
}
