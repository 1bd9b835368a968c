import type { Message, Verdict } from '../../message.ts';
import { Database } from '../virtual/database.ts';
import { Kernel } from '../virtual/kernel.ts';
import type { Fault, FaultKind, Schedule } from './faults.ts';
import { type Effect, Ledger } from './ledger.ts';
import { Link } from './link.ts';
import { placeOf, type Worker } from './place.ts';
import { Process } from './process.ts';
import { Queue, type Received } from './queue.ts';

/** What one run came to. */
export interface Outcome {
  readonly ledger: Ledger;
  /** What each step was, in order. */
  readonly steps: readonly string[];
  readonly story: readonly string[];
  /** How many faults of the schedule did happen. */
  readonly faults: number;
  /** Every message was acknowledged or put aside, and nothing moves any more. */
  readonly ended: boolean;
  /** Messages that were put aside. */
  readonly dead: readonly string[];
}

/** Processes of the worker at any time. One that dies is replaced. */
const fleet = 2;
/** So long after a death the next process is there. */
const restartMs = 100;
/** A handler that throws, in a worker without a receiver, gets its message again after so long. */
const retryMs = 1_000;
const longestMs = 7 * 86_400_000;
const mostSteps = 5_000;

/** Runs the worker through one schedule, in virtual time, until nothing moves any more. Rejects with what a receiver rejects with. */
export async function run(make: Worker, messages: readonly Message[], schedule: Schedule): Promise<Outcome> {
  const kernel = new Kernel();
  const ledger = new Ledger();
  const story: string[] = [];
  const steps: string[] = [];
  const due = new Map<number, FaultKind>(schedule.map(({ step, kind }: Fault) => [step, kind]));
  let faults = 0;
  let made = 0;
  let failure: { readonly error: unknown } | undefined;
  const processes: Process[] = [];
  const workers = new Map<Process, ReturnType<Worker>>();
  const tell = (process: Process, text: string) => void story.push(`${process.name} ${text}`);
  const db = new Database<Effect>(
    kernel,
    (effects) => {
      for (const effect of effects) {
        ledger.apply(effect);
        story.push(`  (${effect.name} ${effect.about} is committed)`);
      }
    },
    'exclusive',
  );
  const queue = new Queue(kernel, messages, offer);
  const links = new Map<Process, Link>();

  function start(): void {
    const process = new Process(kernel, nameOf(made++));
    const link = new Link(process, {
      kernel,
      tell,
      copy: () => queue.copy(),
      awake: offer,
      step(op) {
        const fault = due.get(steps.length);
        steps.push(op);
        if (fault) faults++;
        return fault;
      },
    });
    links.set(process, link);
    process.onKill.add(() => kernel.after(restartMs, start));
    workers.set(
      process,
      process.run(() => make(placeOf(process, { kernel, link, db, ledger }))),
    );
    processes.push(process);
    offer();
  }

  /** By an event of its own, so that nobody's code is handed messages from inside of somebody else's. */
  function offer(): void {
    kernel.at(kernel.now, handOver);
  }

  /** Messages go to whoever has the least to do. */
  function handOver(): void {
    if (!queue.entries.some(({ state }) => state === 'visible')) return;
    const [free] = processes.filter((each) => each.alive && !each.standsStill).sort((a, b) => a.busy - b.busy);
    if (free) handle(free, queue.receive()).catch((error: unknown) => (failure ??= { error }));
  }

  async function handle(process: Process, received: readonly Received[]): Promise<void> {
    const worker = workers.get(process)!;
    tell(process, `receives ${received.map(({ message, receipt }) => message.id + (receipt > 1 ? ' again' : '')).join(', ')}`);
    process.busy += received.length;
    await process.run(async () => {
      if (typeof worker === 'function') {
        await Promise.all(received.map(async (each) => settle(process, each, await verdictOf(worker, each.message))));
        return;
      }
      const deliveries = received.map((each) => ({ message: each.message, each, redelivered: each.receipt > 1 }));
      await worker.process(deliveries, { settled: ({ each }, verdict) => void settle(process, each, verdict) });
    });
  }

  async function settle(process: Process, received: Received, verdict: Verdict): Promise<void> {
    const { entry } = received;
    const { id } = entry.message;
    process.busy--;
    const link = links.get(process)!;
    // A broker that does not answer is not the worker's business: the message comes again.
    if (verdict.action === 'ack')
      await link
        .call(
          `acknowledge ${id}`,
          () => queue.ack(entry),
          () => `acknowledges ${id}`,
        )
        .catch(() => {});
    else if (verdict.action === 'dead-letter') {
      tell(process, `puts ${id} aside: ${verdict.reason}`);
      await link.call(`put ${id} aside`, () => queue.deadLetter(entry)).catch(() => {});
    } else {
      tell(process, `gives ${id} back: ${verdict.reason}`);
      await link.call(`give ${id} back`, () => queue.retry(received, verdict.afterMs)).catch(() => {});
    }
  }

  for (let i = 0; i < fleet; i++) start();
  const tooMuch = await kernel.run(() => kernel.steps > mostSteps || failure !== undefined, longestMs);
  if (failure) throw failure.error;
  return {
    ledger,
    steps,
    story,
    faults,
    ended: !tooMuch && queue.drained,
    dead: queue.entries.filter(({ state }) => state === 'dead').map(({ message }) => message.id),
  };
}

async function verdictOf(handler: (message: Message) => unknown, message: Message): Promise<Verdict> {
  try {
    await handler(message);
    return { action: 'ack', outcome: 'completed' };
  } catch (error) {
    return { action: 'retry', reason: 'failed', afterMs: retryMs, error };
  }
}

/** A, B … Z, then A2. */
function nameOf(made: number): string {
  return `Process ${String.fromCharCode(65 + (made % 26))}${made < 26 ? '' : Math.floor(made / 26) + 1}`;
}
