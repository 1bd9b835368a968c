import { setTimeout as pause } from 'node:timers/promises';
import type { Random } from '../../src/clock.ts';
import { type Aim, type BrokerName, limitOf, type Times } from './cell.ts';
import type { Faults } from './faults.ts';
import type { Fleet, Worker } from './fleet.ts';
import type { Outage } from './judge.ts';

export interface Counts {
  kills: number;
  stops: number;
  storeFaults: number;
  brokerFaults: number;
}

export interface Hand {
  readonly counts: Counts;
  readonly outages: readonly Outage[];
  /** Faults that could not be made, or have not healed. A run with one has failed. */
  readonly broken: readonly string[];
  /** A worker has claimed a message, or is at its effect: a good moment for a blow. */
  atWork(worker: Worker): void;
  /** Resolves when there was enough of everything, or when patience is over; and all has healed. */
  strike(isEnough: () => boolean): Promise<void>;
}

export interface HandOptions {
  readonly fleet: Fleet<unknown>;
  readonly store: Faults;
  readonly broker: Faults;
  readonly brokerName: BrokerName;
  readonly aim: Aim;
  readonly times: Times;
  readonly random: Random;
}

/** The chaos hand: kills and stops workers, and breaks store and broker, until it has done its share. */
export function hand({ fleet, store, broker, brokerName, aim, times, random }: HandOptions): Hand {
  const counts: Counts = { kills: 0, stops: 0, storeFaults: 0, brokerFaults: 0 };
  const outages: Outage[] = [];
  const broken: string[] = [];
  const upTo = (most: number) => Math.floor(random.number() * most);
  const between = (atLeast: number, atMost: number) => atLeast + random.number() * (atMost - atLeast);
  let aiming: ((worker: Worker) => void) | undefined;
  let over = false;

  /** The next worker that is at work, or anybody. */
  async function victim(): Promise<Worker | undefined> {
    if (random.number() < 0.3) return fleet.working[upTo(fleet.working.length)];
    const found = await Promise.race([
      new Promise<Worker>((resolve) => {
        aiming = resolve;
      }),
      pause(100, undefined),
    ]);
    aiming = undefined;
    await pause(random.number() * 12);
    return found;
  }

  /** What there was enough of goes on, but rarely: what is still wanting needs servers and workers that work. */
  const rarely = (isEnough: boolean) => (isEnough ? 10 : 1);

  /** What is still wanting of them; of either a little, for ever. */
  const kills = () => Math.max(aim.kills / 50, aim.kills - counts.kills);
  const stops = () => Math.max(aim.stops / 50, aim.stops - counts.stops);

  /**
   * Two or three a second, which is what two cores can replace and still have work done. At the workers of a Kafka group many at once, because the group
   * stands still after each until sessions are over.
   */
  const volley =
    brokerName === 'kafka'
      ? { blows: 12, everyMs: 1_500 + times.sessionMs }
      : { blows: 1, everyMs: (2_000 * aim.seconds) / (aim.kills + aim.stops) };

  async function beat(stalls: Set<Promise<void>>): Promise<void> {
    while (!over) {
      const startedAt = performance.now();
      const everyMs = volley.everyMs * rarely(counts.kills >= aim.kills && counts.stops >= aim.stops);
      for (let i = 0; i < volley.blows && !over; i++) {
        const worker = await victim();
        if (worker?.state !== 'working') continue;
        const isKill = random.number() * (kills() + stops()) < kills();
        if (isKill) {
          fleet.kill(worker);
          counts.kills++;
        } else if (fleet.working.length > 4) {
          const stall = fleet.stop(worker, between(times.stopMs.atLeast, times.stopMs.atMost));
          stalls.add(stall);
          void stall.then(() => {
            counts.stops++;
            stalls.delete(stall);
          });
        }
      }
      await pause(Math.max(5, everyMs * between(0.6, 1.2) - (performance.now() - startedAt)));
    }
  }

  /** One fault after another, each of them in its turn, with rests between. */
  async function harm(of: Outage['of'], faults: Faults, aimed: number): Promise<void> {
    const names = Object.keys(faults);
    if (names.length === 0) return;
    const everyMs = (800 * aim.seconds) / Math.max(1, aimed);
    const rest = () => everyMs * between(0.3, 0.9) * rarely(counts[`${of}Faults`] >= aimed);
    for (let turn = upTo(names.length); !over; turn++) {
      for (const until = performance.now() + rest(); !over && performance.now() < until; ) await pause(50);
      if (over) return;
      const name = names[turn % names.length]!;
      const at = Date.now();
      try {
        await faults[name]!(between(200, 900));
      } catch (error) {
        broken.push(`${of}, ${name}: ${error}`);
      }
      outages.push({ of, at, until: Date.now() });
      counts[`${of}Faults`]++;
    }
  }

  return {
    counts,
    outages,
    broken,
    atWork: (worker) => aiming?.(worker),
    async strike(isEnough) {
      const startedAt = performance.now();
      const stalls = new Set<Promise<void>>();
      const busy = [beat(stalls), harm('store', store, aim.storeFaults), harm('broker', broker, aim.brokerFaults)];
      const seconds = () => (performance.now() - startedAt) / 1_000;
      const isDone = () =>
        seconds() >= aim.seconds &&
        counts.kills >= aim.kills &&
        counts.stops >= aim.stops &&
        counts.storeFaults >= aim.storeFaults &&
        counts.brokerFaults >= aim.brokerFaults &&
        isEnough();
      while (!isDone() && !fleet.hopeless && seconds() < limitOf(aim)) await pause(50);
      over = true;
      await Promise.all(busy);
      await Promise.all(stalls);
    },
  };
}
