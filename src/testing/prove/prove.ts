import { expectNumber, refuseOption } from '../../errors.ts';
import type { Message } from '../../message.ts';
import { type Fault, type FaultKind, faults, type Schedule } from './faults.ts';
import { virtualGlobals } from './globals.ts';
import { type Difference, difference, type Effect, type Expectation } from './ledger.ts';
import type { Worker } from './place.ts';
import { type Outcome, run } from './run.ts';

/** What `prove` needs to know. */
export interface ProveOptions {
  /** What the broker hands over. One or two are enough: the number of schedules grows with the square of the steps. */
  readonly messages: readonly (Pick<Message, 'body'> & Partial<Message>)[];
  /** How often each effect has to happen, by its name. @default 'once' for each */
  readonly effects?: Readonly<Record<string, Expectation>>;
  /** Schedules to run at most. All those with one fault are run before any with two. @default 2_000 */
  readonly schedules?: number;
  /** What may go wrong. @default everything */
  readonly faults?: readonly FaultKind[];
}

/** The worker stood all schedules that were run. */
export interface Proof {
  readonly schedules: number;
  /** Those with one fault, which are all that there are unless `schedules` is less; and those with two, of which there may be more. */
  readonly withOne: number;
  readonly withTwo: number;
  /** Steps of the run without faults. */
  readonly steps: number;
  readonly effects: readonly Effect[];
  /** The same as a sentence. */
  readonly says: string;
}

/** A schedule that loses or repeats an effect. Its message tells it as a story. */
export class CounterExample extends Error {
  override readonly name: string = 'CounterExample';
  readonly schedule: Schedule;
  readonly story: readonly string[];

  constructor(message: string, schedule: Schedule, story: readonly string[]) {
    super(message);
    this.schedule = schedule;
    this.story = story;
  }
}

/**
 * Proves that a worker of yours has each effect once, whatever happens to its processes: kills it at each step that it takes outside of itself,
 * loses the request or the reply, lets it stand still until others have taken over, delivers copies to others; one fault at every step, then pairs
 * of faults. Everything is virtual, so nothing is charged, and a second is enough for hundreds of schedules.
 *
 * ```ts
 * await prove(({ store, world, effect }) =>
 *   createReceiver({ store, world, scope: 'billing', key: body((order: Order) => order.id), guarantee: 'leased' },
 *     async (order: Order, ctx) => effect('charge', order.id, { key: ctx.key('charge') })),
 *   { messages: [{ body: { id: 'order-1' } }] });
 * ```
 *
 * `make` is called for each process anew: what must not outlive a process has to be made inside of it. The worker may touch the outside
 * only through what it is given, and time only through `world`, `setTimeout`, `setInterval`, `setImmediate` and `Date.now`, which are
 * virtual for it. What has happened in the run without faults is what must have happened after every other.
 *
 * @throws CounterExample with the shortest schedule found that breaks it; ReceiverError `invalid-option`
 */
export async function prove(make: Worker, options: ProveOptions): Promise<Proof> {
  if (typeof make !== 'function') refuseOption('worker', 'a function that makes a receiver or a handler', make);
  if (!Array.isArray(options?.messages) || options.messages.length === 0)
    refuseOption('messages', 'at least one message', options?.messages);
  const limit = expectNumber('schedules', options.schedules ?? 2_000, { atLeast: 1, integer: true });
  const kinds = options.faults ?? faults;
  const expect = options.effects ?? {};
  const messages = options.messages.map((message, i): Message => ({ id: `message-${i + 1}`, headers: {}, ...message }));
  const restore = virtualGlobals();
  try {
    const plain = await run(make, messages, []);
    if (!plain.ended || plain.dead.length > 0) throw broken('A run without any fault does not come to its end', [], plain);
    if (plain.ledger.effects.length === 0)
      refuseOption('worker', 'a worker that has effects: `effect(…)`, or `tx.write(…)` in a transaction', 'none');

    async function stands(schedule: Schedule): Promise<Outcome> {
      const outcome = await run(make, messages, schedule);
      const found = difference(outcome.ledger, plain.ledger, expect);
      if (found) throw broken(sentence(found), schedule, outcome, found);
      if (!outcome.ended)
        throw broken('The message is never done with: it comes again and again, or something goes on for ever', schedule, outcome);
      return outcome;
    }

    const singles = pairsOf(plain.steps.length, 0, kinds);
    let withOne = 0;
    const next: { readonly first: Fault; readonly steps: number }[] = [];
    for (const first of singles.slice(0, limit)) {
      const { steps } = await stands([first]);
      withOne++;
      next.push({ first, steps: steps.length });
    }
    const pairs = next.flatMap(({ first, steps }) => pairsOf(steps, first.step + 1, kinds).map((second): Schedule => [first, second]));
    const room = Math.min(limit - withOne, pairs.length);
    let withTwo = 0;
    for (; withTwo < room; withTwo++) await stands(pairs[Math.floor((withTwo * pairs.length) / room)]!);
    const effects = plain.ledger.effects;
    const says = `Stood ${withOne} schedules with one fault (${withOne < singles.length ? `of ${singles.length}` : 'all'}) and ${withTwo} with two (${withTwo < pairs.length ? `of ${pairs.length}` : 'all'})`;
    return { schedules: withOne + withTwo, withOne, withTwo, steps: plain.steps.length, effects, says };
  } finally {
    restore();
  }
}

/** Each fault at each step from `from` on. */
function pairsOf(steps: number, from: number, kinds: readonly FaultKind[]): Fault[] {
  const list: Fault[] = [];
  for (let step = from; step < steps; step++) for (const kind of kinds) list.push({ step, kind });
  return list;
}

function sentence({ effect: { name, about }, wanted, got }: Difference): string {
  if (got < wanted) return `${name} ${about} is lost: it happened ${times(got)}, and has to happen ${times(wanted)}`;
  return `${name} ${about} is repeated: it happened ${times(got)}, and has to happen ${times(wanted)}`;
}

function times(count: number): string {
  return count === 0 ? 'never' : count === 1 ? 'once' : count === 2 ? 'twice' : `${count} times`;
}

function broken(what: string, schedule: Schedule, { story }: Outcome, found?: Difference): CounterExample {
  const lines = story.map((line, i) => `${String(i + 1).padStart(4)}. ${line}`);
  const hint = found ? `\n\n${adviceFor(found)}` : '';
  return new CounterExample(`${what}.\n\n${lines.join('\n')}${hint}`, schedule, story);
}

/** The helper that closes the gap, as far as it can be told from the outcome. */
function adviceFor({ wanted, got }: Difference): string {
  return got < wanted
    ? 'An effect is lost where the message is acknowledged, or recorded as done, before the effect has happened for good. Record it in the same transaction (`ctx.tx`), or let the receiver record it after the handler has returned; await everything that you start.'
    : 'An effect is repeated where a process dies, or is overtaken, between the effect and its record. Write both in one transaction (`ctx.tx`), or give the system outside an idempotency key (`ctx.key(name)`) that is the same for each attempt.';
}
