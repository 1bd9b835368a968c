import { consumerIn, type Parts } from './subject.ts';
import { Worker } from './worker.ts';

/** What the checks are told by the fleet. */
interface FleetParts extends Parts {
  readonly onStopped: (worker: Worker, stopAt: number, abandoned: number) => void;
}

/** All workers: each a process with a receiver and a consumer in it, started again when it has died. */
export class Fleet {
  readonly members: Member[];
  /** Every process that ever ran. */
  readonly workers: Worker[] = [];
  readonly parts: FleetParts;

  constructor(names: readonly string[], parts: FleetParts) {
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
    const { kernel, chance, scenario, watch, onStopped } = this.#fleet.parts;
    const name = `${this.name}.${++this.#incarnation}`;
    const stream = chance.stream(name);
    const skewMs = Math.round((stream.next() * 2 - 1) * scenario.skewMs);
    const worker = new Worker(kernel, name, stream, skewMs, 1 + (stream.next() * 2 - 1) * scenario.drift);
    this.worker = worker;
    this.#fleet.workers.push(worker);
    watch.tell(name, () => 'starts');
    const consumer = consumerIn(this.#fleet.parts, worker);
    // A crash is followed by a new process, some time later.
    worker.onCrash.add(() => {
      watch.tell(name, () => 'is dead', true);
      watch.count('crashes');
      kernel.after(100 + stream.next() * scenario.leaseMs * 1.5, () => this.start());
    });
    let stopping = false;
    const stop = (graceMs: number) => {
      if (stopping || !worker.alive) return;
      stopping = true;
      const stopAt = kernel.now;
      watch.tell(name, () => `is told to stop within ${graceMs} ms`);
      const patienceMs = graceMs + 60_000 + 2 * (this.#fleet.parts.broker.requestTimeoutMs ?? 0);
      // A worker that stands still does not stop either: its time begins when it is awake.
      let late = () => {};
      const inTime = () => {
        const leftMs = Math.max(stopAt, worker.pausedUntil) + patienceMs - kernel.now;
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
        onStopped(worker, stopAt, abandoned);
        worker.exit();
        if (!this.#closing) kernel.after(50 + stream.next() * 2_000, () => this.start());
      });
    };
    this.#stop = stop;
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
