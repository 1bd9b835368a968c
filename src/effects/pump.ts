import type { World } from '../clock.ts';
import { describeError, ReceiverError } from '../errors.ts';
import type { Delivered, Destination, Due, Fate, OutboxQueue } from './outbox.ts';

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

const left: Fate = { as: 'left' };
const sent: Fate = { as: 'sent' };

/**
 * Takes messages and sends them, again and again. Two kinds of failure have to be told apart: of the destination, which passes and must park
 * nothing, and of a message, which must not keep the others waiting. So a batch of which nothing was sent is halved until one message is
 * alone. That one is set aside for a while; and it has counted as a failure of its own only if others have been sent since the last one that was.
 */
export function pumpTo<Name extends string>(
  outbox: OutboxQueue<Name>,
  name: Name,
  destination: Destination,
  settings: PumpSettings,
  over: AbortSignal,
): () => Promise<Pumped> {
  const { world, batchSize, maxAttempts, backoff, report } = settings;
  let limit = batchSize;
  let failuresInRow = 0;
  // Not known at first: a relay that is started again and again while the destination is down must park nothing either.
  let othersWereSent = false;

  async function send(messages: readonly Due[]): Promise<Fate[]> {
    let results: readonly Delivered[];
    try {
      results = await destination.send(messages, over);
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
      othersWereSent = true;
      limit = Math.min(batchSize, limit * 2);
    } else if (fates.every((fate) => fate === left)) {
      failuresInRow++;
      if (messages.length > 1) limit = Math.min(limit, messages.length >> 1);
      else fates[0] = alone(messages[0]!, bad!.error);
    }
    return fates;
  }

  function alone(message: Due, error: unknown): Fate {
    if (!othersWereSent) return { as: 'again', afterMs: pauseMs(), counted: false };
    othersWereSent = false;
    return failed(message, error);
  }

  function failed({ failures }: Due, error: unknown): Fate {
    if (failures + 1 >= maxAttempts) return { as: 'parked', reason: describeError(error) };
    return { as: 'again', afterMs: lessByChance(Math.min(backoff.maxMs, backoff.firstMs * 2 ** failures)), counted: true };
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
