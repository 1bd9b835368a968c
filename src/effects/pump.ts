import type { World } from '../clock.ts';
import { describeError, ReceiverError } from '../errors.ts';
import { type Delivered, type Destination, type Due, type Fate, type OutboxQueue, sharedFailures } from './outbox.ts';

interface PumpSettings {
  readonly world: World;
  readonly batchSize: number;
  readonly maxAttempts: number;
  readonly backoff: { readonly firstMs: number; readonly maxMs: number };
  readonly maxPauseMs: number;
  readonly report: (error: unknown, destination: string) => void;
}

/** How many messages a take was given, and how long to wait before the next one, for failures. */
interface Pumped {
  readonly taken: number;
  readonly pauseMs: number;
}

type Unsent = Exclude<Delivered, { readonly state: 'sent' }>;

/** Messages that have failed alone are remembered up to this number: most of them are sent later, and not seen again. */
const maxSuspects = 1_000;

const left: Fate = { as: 'left' };
const sent: Fate = { as: 'sent' };

/**
 * Takes messages and sends them, again and again. Two kinds of failure have to be told apart: of the destination, which passes and must park
 * nothing, and of a message, which must not keep the others waiting. So a batch of which nothing was sent is halved until one message is
 * alone. That one is set aside for a while; and it counts as a failure of its own only if it had failed alone before, and others have been sent
 * since then by this very relay: there may be many, and each may have been started anew.
 */
export function pumpTo<Name extends string>(
  outbox: OutboxQueue<Name>,
  name: Name,
  destination: Destination,
  settings: PumpSettings,
  over: AbortSignal,
): () => Promise<Pumped> {
  const { world, batchSize, maxAttempts, backoff, report } = settings;
  const { leaseMs = Number.POSITIVE_INFINITY } = outbox;
  let limit = batchSize;
  let failuresInRow = 0;
  let sends = 0;
  /** How many sends there had been when a message last failed alone, by its id. */
  const suspects = new Map<string, number>();

  async function send(messages: readonly Due[]): Promise<Fate[]> {
    // The relay may have ended without waiting for the outbox.
    if (over.aborted) return messages.map(() => left);
    const { failures } = messages[0]!;
    // Failures that were seen would have parked it: see 46.
    if (failures >= maxAttempts + sharedFailures) {
      const reason = `Tried ${failures} times; who tried it died, or lost the database`;
      report(new ReceiverError('parked', `Message ${messages[0]!.id} was given up: ${reason}`), name);
      return [{ as: 'parked', reason }];
    }
    let results: readonly Delivered[];
    try {
      results = await sendInTime(messages);
      if (results.length !== messages.length)
        throw new ReceiverError('broker', `Expected ${messages.length} answers from destination ${name}, got ${results.length}`);
    } catch (error) {
      results = messages.map(() => ({ state: 'failed', error }));
    }
    const fates = results.map((result, i) =>
      result.state === 'sent' ? sent : result.state === 'refused' ? failed(messages[i]!, result.error) : left,
    );
    const bad = results.find((result): result is Unsent => result.state !== 'sent');
    if (bad) report(bad.error, name);
    if (fates.includes(sent)) {
      failuresInRow = 0;
      sends++;
      limit = Math.min(batchSize, limit * 2);
    } else if (fates.every((fate) => fate === left)) {
      failuresInRow++;
      if (messages.length > 1) limit = Math.min(limit, messages.length >> 1);
      else fates[0] = alone(messages[0]!, bad!.error);
    }
    return fates;
  }

  /** The destination is told to end while it can still be told from a death that nothing was sent: a lease that is over counts against the messages. */
  async function sendInTime(messages: readonly Due[]): Promise<readonly Delivered[]> {
    const end = new AbortController();
    const onOver = () => end.abort(over.reason);
    const cancel = world.clock.after(leaseMs * 0.75, () => {
      end.abort(new ReceiverError('broker', `Expected destination ${name} to answer within three quarters of ${leaseMs} ms`));
    });
    over.addEventListener('abort', onOver, { once: true });
    try {
      return await destination.send(messages, end.signal);
    } finally {
      cancel();
      over.removeEventListener('abort', onOver);
    }
  }

  function alone(message: Due, error: unknown): Fate {
    const before = suspects.get(message.id) ?? sends;
    if (suspects.size >= maxSuspects) suspects.clear();
    suspects.set(message.id, sends);
    return before < sends ? failed(message, error) : { as: 'again', afterMs: pauseMs(), counted: false };
  }

  function failed({ failures }: Due, error: unknown): Fate {
    if (failures + 1 >= maxAttempts) return { as: 'parked', reason: describeError(error) };
    return { as: 'again', afterMs: lessByChance(Math.min(backoff.maxMs, backoff.firstMs * 2 ** Math.min(failures, 1_000))), counted: true };
  }

  function pauseMs(): number {
    return lessByChance(Math.min(settings.maxPauseMs, 100 * 2 ** (failuresInRow - 1)));
  }

  function lessByChance(ms: number): number {
    return Math.round(ms * (1 - world.random.number() / 2));
  }

  return async () => {
    const failuresBefore = failuresInRow;
    try {
      const taken = await outbox.take(name, limit, send);
      return { taken, pauseMs: failuresInRow > failuresBefore ? pauseMs() : 0 };
    } catch (error) {
      failuresInRow++;
      report(error, name);
      return { taken: 0, pauseMs: pauseMs() };
    }
  };
}
