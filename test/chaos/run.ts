import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { virtualWorld } from '../../src/testing/virtual-world.ts';
import { unique } from '../support/unique.ts';
import type { BrokerSide, Channel } from './brokers.ts';
import { type Aim, type Cell, limitOf, type Order, type Times } from './cell.ts';
import { type Fleet, startFleet } from './fleet.ts';
import { hand } from './hand.ts';
import { type Event, judge, type Outage, type Verdict } from './judge.ts';
import { openLedger } from './ledger.ts';
import type { StoreSide } from './stores.ts';
import type { Answer, Task, Told } from './wire.ts';

/** What is asked of a run. */
export interface Plan {
  readonly aim: Aim;
  readonly times: Times;
  readonly seed: number;
  /** Called every ten seconds with how far it is. */
  readonly onProgress?: (line: string) => void;
}

/** What has come of one cell. */
export interface Found extends Verdict {
  readonly cell: Cell;
  readonly seed: number;
  readonly leaseMs: number;
  readonly seconds: number;
  readonly messages: number;
  /** Copies that the producer sent, and how often workers said `duplicate`, `busy`, `fenced`. */
  readonly copies: number;
  readonly told: Readonly<Record<string, number>>;
  readonly kills: number;
  readonly stops: number;
  readonly storeFaults: number;
  readonly brokerFaults: number;
  /** Effects that the ledger refused, because their fence was stale. */
  readonly refused: number;
  readonly parked: readonly string[];
  /** Not acked when the time was up. */
  readonly left: number;
  /** What went wrong with the run itself. */
  readonly accidents: readonly string[];
}

const keys = 240;
/** Of a Kafka group some have no partition, and wait for one. */
const workers = { 'sqs-fifo': 8, 'sqs-standard': 8, kafka: 14 };

/** Fleets that run now: none outlives this process. */
const fleets = new Set<Fleet<never>>();
/** Compiled code of the workers. */
const cache = join(tmpdir(), `chaos-compiled-${process.pid}`);
process.once('exit', () => {
  for (const fleet of fleets) fleet.killAll();
  rmSync(cache, { recursive: true, force: true, maxRetries: 5 });
});

/** Chaos, then peace until nothing is left, then the sets are compared. */
export async function run(cell: Cell, store: StoreSide, broker: BrokerSide, { aim, times, seed, onProgress }: Plan): Promise<Found> {
  const startedAt = performance.now();
  const name = unique('chaos');
  const { random } = virtualWorld({ seed });
  const folder = mkdtempSync(join(tmpdir(), 'chaos-'));
  const ledger = openLedger(join(folder, 'ledger.db'));
  const channel = await broker.open(name);
  const storeUrl = await store.prepare(name);
  const task = (n: number): Task => ({ ...cell, name, storeUrl, brokerUrl: broker.url, queue: channel.queue, times, seed: seed + n });
  const fleet = startFleet<Told>({
    script: new URL('worker.ts', import.meta.url),
    size: workers[cell.broker],
    task,
    cache,
  });
  fleets.add(fleet);
  const chaos = hand({
    fleet: fleet as Fleet<unknown>,
    store: cell.mode === 'naive' ? {} : store.faults,
    broker: broker.faults,
    brokerName: cell.broker,
    aim: cell.mode === 'naive' ? { ...aim, storeFaults: 0 } : aim,
    times,
    random,
  });
  const told: Record<string, number> = {};
  const events = new Map<string, Event[]>();
  const parked: string[] = [];
  const slow: Outage[] = [];
  const handled = new Set<string>();

  fleet.onTold = (worker, message) => {
    const pid = worker.process.pid!;
    const at = Date.now();
    if (message.is === 'claimed' || message.is === 'effect') chaos.atWork(worker);
    told[message.is] = (told[message.is] ?? 0) + 1;
    if (message.is === 'working' && worker.state === 'starting') worker.state = 'working';
    if (message.is === 'claimed' || message.is === 'recorded' || message.is === 'duplicate' || message.is === 'effect') {
      const id = message.is === 'effect' ? message.order.id : message.id;
      const known = events.get(id) ?? [];
      events.set(id, known);
      known.push({ is: message.is, worker: pid, at });
    }
    if (message.is === 'parked') parked.push(`${message.id}: ${message.reason}`);
    if (message.is === 'stalled') worker.blows.push({ kind: 'stall', at: message.from, until: message.until });
    // A call that was begun a lease ago has failed.
    if (message.is === 'storeDown') slow.push({ of: 'store', worker: pid, at: at - times.leaseMs, until: at });
    if (message.is !== 'effect') return;
    const { ask, order, fence } = message;
    handled.add(order.id);
    if (ask === undefined) return;
    ledger.append({ ...order, worker: pid, fence, at }, (accepted) => fleet.answer(worker, { ask, accepted } satisfies Answer));
  };

  const progress = setInterval(() => {
    const { kills, stops, storeFaults, brokerFaults } = chaos.counts;
    const seconds = Math.round((performance.now() - startedAt) / 1_000);
    onProgress?.(`${seconds} s: ${handled.size} handled, ${kills} kills, ${stops} stops, ${storeFaults} and ${brokerFaults} faults`);
  }, 10_000);
  // On a standard queue what comes again comes behind all that waits: not much, if a stopped worker is to find another's effect when it wakes up.
  const ahead = (cell.mode === 'fenced' && !broker.isOrdered ? 1 : 10) * keys;
  const producing = produce(channel, aim, ahead, () => handled.size, random.number);
  await chaos.strike(() => producing.sent.size >= aim.messages);
  await producing.end();
  const left = await drained(
    channel,
    () => [...producing.sent.keys()].every((id) => handled.has(id)),
    fleet.hopeless ? 0 : cell.mode === 'naive' ? 10_000 : 120_000,
  );
  // Whoever was late, or has still a copy, shows now.
  await pause(2 * times.visibilityMs);
  const forced = await fleet.dismiss();
  clearInterval(progress);
  fleets.delete(fleet);
  const entries = cell.mode === 'transactional' ? await store.entries(name) : ledger.entries();
  const verdict = judge({
    mode: cell.mode,
    isOrdered: broker.isOrdered,
    leaseMs: times.leaseMs,
    sent: producing.sent,
    entries,
    events,
    blows: new Map([...fleet.all].map(([pid, { blows }]) => [pid, blows])),
    outages: [...chaos.outages, ...slow],
  });
  const { refused } = ledger;
  ledger.close();
  await channel.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  return {
    ...verdict,
    cell,
    seed,
    leaseMs: times.leaseMs,
    seconds: Math.round((performance.now() - startedAt) / 100) / 10,
    messages: producing.sent.size,
    copies: [...producing.sent.values()].filter(({ times: sent }) => sent > 1).length,
    told,
    ...chaos.counts,
    refused,
    parked,
    left,
    accidents: [...chaos.broken, ...fleet.accidents, ...(forced > 0 ? [`${forced} workers did not end when they were asked to`] : [])],
  };
}

/**
 * Sends while there is chaos, one in ten twice, and so many more than are handled: who is struck is to be at work, and the others too while what a
 * victim held is not visible yet.
 */
function produce(channel: Channel, aim: Aim, ahead: number, handled: () => number, chance: () => number) {
  const sent = new Map<string, { order: Order; times: number }>();
  const perSecond = (aim.messages / aim.seconds) * 1.3;
  let over = false;
  const running = (async () => {
    const startedAt = performance.now();
    while (!over && performance.now() - startedAt < limitOf(aim) * 1_000) {
      await pause(20);
      const due = ((performance.now() - startedAt) / 1_000) * perSecond - sent.size;
      const orders: Order[] = [];
      for (let i = 0; i < Math.min(due, 200, ahead - (sent.size - handled())); i++) {
        const n = sent.size;
        const order = { id: `m${n}`, key: `k${n % keys}`, n };
        const times = chance() < 0.1 ? 2 : 1;
        sent.set(order.id, { order, times });
        orders.push(order);
      }
      // Copies come after others, as a producer's that has waited for an answer in vain.
      const copies = orders.filter(({ id }) => sent.get(id)!.times > 1);
      if (orders.length > 0) await channel.send([...orders, ...copies]);
    }
  })();
  running.catch(() => {});
  return {
    sent,
    async end() {
      over = true;
      await running;
    },
  };
}

/** Waits until all is done and acked. Answers what is left. */
async function drained(channel: Channel, isHandled: () => boolean, withinMs: number): Promise<number> {
  for (const giveUpAt = performance.now() + withinMs; ; await pause(100)) {
    const left = await channel.left().catch(() => Number.POSITIVE_INFINITY);
    if ((left === 0 && isHandled()) || performance.now() > giveUpAt) return left;
  }
}
