import { createReceiver, once } from '../../src/index.ts';
import { Kernel } from '../../src/testing/virtual/kernel.ts';
import { callers } from './brokers/calls.ts';
import { type KafkaSimBroker, kafkaBroker } from './brokers/kafka.ts';
import { logStore } from './brokers/kafka-log.ts';
import { sqsBroker } from './brokers/sqs.ts';
import { Chance, type Fault } from './chance.ts';
import { Checks } from './checks.ts';
import { FleetDatabase } from './database.ts';
import { Fleet } from './fleet.ts';
import { Ledger } from './ledger.ts';
import { Server } from './link.ts';
import { type BrokerKind, type Scenario, scenarioOf, type Way } from './scenario.ts';
import { databaseStore, leasedStore, type SimStore } from './stores.ts';
import type { Code } from './subject.ts';
import { type Interesting, type Line, type Violation, Watch } from './watch.ts';

/** One run: a seed, and where it is a replay, the faults and the parts of the scenario that are to be in it. */
export interface RunOptions {
  readonly seed: number;
  readonly way: Way;
  readonly broker: BrokerKind;
  readonly only?: ReadonlySet<string>;
  readonly telling?: boolean;
  /** The code under test, if it is not that of this checkout. */
  readonly lab?: Lab;
}

/** Code and store to be tried: the real ones by default, others from the bug zoo. */
export interface Lab extends Partial<Code> {
  readonly leasedStore?: Parameters<typeof leasedStore>[5];
}

export interface Report {
  readonly violations: readonly Violation[];
  readonly faults: readonly Fault[];
  readonly counts: Readonly<Record<Interesting, number>>;
  readonly story: readonly Line[];
  readonly steps: number;
  readonly scenario: Scenario;
}

/** How long after the last fault everything must have come to rest. */
const drainMs = 60 * 60_000;

const makers = { standard: sqsBroker, fifo: sqsBroker, kafka: kafkaBroker, 'kafka-transactions': kafkaBroker, calls: callers };

let watching: Watch | undefined;
process.on('unhandledRejection', (error) => {
  if (!watching) throw error;
  watching.violation('broken', `nobody handles a rejection: ${error instanceof Error ? error.stack : String(error)}`);
});

/** Runs one seed from its first message to the last check. */
export async function simulate({ seed, way, broker: kind, only, telling = false, lab = {} }: RunOptions): Promise<Report> {
  const chance = new Chance(seed, only);
  const scenario = scenarioOf(seed, way, kind, chance);
  const kernel = new Kernel();
  const watch = new Watch(kernel, telling);
  watching = watch;
  const checks = new Checks({ kernel, chance, scenario, watch });
  const storeServer = new Server('store');
  const ledger = new Ledger(kernel);
  const db = new FleetDatabase(kernel, ledger, scenario.isolation, scenario.relaxed);
  const broker = makers[kind](kernel, chance, scenario, watch);
  const store: SimStore =
    kind === 'kafka-transactions'
      ? logStore({ kernel, chance, scenario, watch, ledger, broker: broker as KafkaSimBroker })
      : way === 'transactional'
        ? databaseStore(storeServer, watch, db)
        : leasedStore(kernel, storeServer, watch, checks.nameOf, scenario.relaxed, lab.leasedStore);
  checks.connect({ store, broker, ledger });
  const fleet = new Fleet(scenario.workers, {
    kernel,
    chance,
    scenario,
    store,
    broker,
    ledger,
    watch,
    onVerdict: (worker, messageId, verdict) => checks.verdict(worker, messageId, verdict),
    onStopped: (worker, stopAt, abandoned) => checks.stopped(worker, stopAt, abandoned),
    code: { createReceiver, once, ...lab },
  });

  let unsent = scenario.messages.length;
  for (const message of scenario.messages) {
    kernel.at(message.atMs, () => {
      unsent--;
      broker.send(message);
    });
  }
  for (const server of new Set([store.server, broker.server])) outages(kernel, chance, scenario, server, watch);
  kernel.at(scenario.healAtMs, () => {
    chance.healed = true;
    watch.tell('world', () => 'is healed: no fault from here on');
  });
  fleet.start();
  // A run may be over before the faults are.
  const done = () => unsent === 0 && broker.quiet();
  const quiet = await kernel.run(done, scenario.healAtMs + drainMs);
  chance.healed = true;
  await kernel.run(() => false, kernel.now + 20);
  fleet.close();
  const closed = await kernel.run(() => fleet.closed, kernel.now + scenario.visibilityMs * 8 + 120_000);
  if (!closed) watch.violation('I10', 'a worker does not stop');
  watch.count('fencedWrites', ledger.fencedWrites);
  watch.count('lostWrites', store.lost.size);
  checks.final(quiet);
  watching = undefined;
  return { violations: watch.violations, faults: chance.faults, counts: watch.counts, story: watch.story, steps: kernel.steps, scenario };
}

/** A server goes away, and comes back. */
function outages(kernel: Kernel, chance: Chance, scenario: Scenario, server: Server, watch: Watch): void {
  const site = chance.site(`${server.name} outage`);
  const beat = () => {
    if (chance.healed) return;
    const fault = site.draw(scenario.odds.outage, kernel.now);
    if (fault) {
      server.downUntil = kernel.now + fault.size * scenario.leaseMs * 2;
      server.swallows = fault.kind === 'swallows';
      server.onCrash();
      watch.count('outages');
      watch.tell(server.name, () => `is down for ${Math.round(server.downUntil - kernel.now)} ms, ${fault.kind} connections`, true);
    }
    kernel.after(scenario.relaxed ? 3_700 : 10_000, beat);
  };
  kernel.after(1_000 + chance.stream(`${server.name} outages`).next() * 1_000, beat);
}
