import { realWorld, sleep, type World } from '../clock.ts';
import { describeError, expectNumber, expectOptions, ReceiverError, refuseOption } from '../errors.ts';
import type { Destination, OutboxQueue } from './outbox.ts';
import { pumpTo } from './pump.ts';

/** Options of {@link relay}. All times are in milliseconds. */
export interface RelayOptions<Name extends string> {
  readonly outbox: OutboxQueue<Name>;
  /** Where messages go, by the name that they were published for. What is left out is left to another relay. */
  readonly to: { readonly [Each in Name]?: Destination };
  /** Messages in one take. @default 1_000 */
  readonly batchSize?: number;
  /** How long an idle relay waits before it looks again. @default 200 */
  readonly pollMs?: number;
  /** Tries before a message that fails for a reason of its own, or kills those who try it, is parked. @default 10 */
  readonly maxAttempts?: number;
  /** Delay before such a message is tried again: `firstMs`, doubled by each failure up to `maxMs`, less up to a half by chance. @default 1_000 and 300_000 */
  readonly backoff?: { readonly firstMs?: number; readonly maxMs?: number };
  /** Told about everything that fails; the relay goes on by itself. @default a warning of the process */
  readonly onError?: (error: unknown, destination: string) => void;
  /** Time and chance. @default the machine's own */
  readonly world?: World;
}

/** Sends what is in an outbox. Any number of relays may serve one outbox. */
export interface Relay {
  /**
   * Sends until `signal` is aborted; then lets what is under way end, for `graceMs` (10,000), tells the destinations to end, waits a little more, and
   * closes them. Messages that are not done by then are sent again. Never rejects for what a broker or a database does.
   * @throws ReceiverError `stopped` if it was run before
   */
  run(signal: AbortSignal, options?: { readonly graceMs?: number }): Promise<void>;
  /** Sends what is due now, and then ends as `run` does. For jobs that run now and then, and for tests. */
  drain(signal?: AbortSignal): Promise<void>;
}

/** The longest pause after failures in a row. */
const maxPauseMs = 30_000;
/** How long a relay waits for what is under way after it has told the destinations to end. */
const lastWaitMs = 2_000;

/** Makes a relay. @throws ReceiverError `invalid-option` */
export function relay<Name extends string>(options: RelayOptions<Name>): Relay {
  expectOptions(options, '`{ outbox, to }`');
  const { outbox, to, world = realWorld, onError = warn } = options;
  if (typeof outbox?.take !== 'function') refuseOption('outbox', 'an outbox', outbox);
  const destinations = Object.entries(to ?? {}) as [Name, Destination][];
  if (destinations.length === 0) refuseOption('to', '`{ name: destination }`', to);
  for (const [name, destination] of destinations) {
    if (!outbox.destinations.includes(name))
      refuseOption('to', `a subset of the outbox's destinations (${outbox.destinations.join(', ')})`, name);
    if (typeof destination?.send !== 'function') refuseOption(`to.${name}`, 'a destination', destination);
  }
  const firstMs = expectNumber('backoff.firstMs', options.backoff?.firstMs ?? 1_000, { atLeast: 0 });
  const settings = {
    world,
    batchSize: expectNumber('batchSize', options.batchSize ?? 1_000, { atLeast: 1, atMost: 10_000, integer: true }),
    maxAttempts: expectNumber('maxAttempts', options.maxAttempts ?? 10, { atLeast: 1, integer: 'or Infinity' }),
    backoff: {
      firstMs,
      maxMs: expectNumber('backoff.maxMs', options.backoff?.maxMs ?? Math.max(firstMs, 300_000), { atLeast: firstMs }),
    },
    maxPauseMs,
    report,
  };
  const pollMs = expectNumber('pollMs', options.pollMs ?? 200, { atLeast: 1 });
  let started = false;

  function report(error: unknown, destination: string): void {
    try {
      onError(error, destination);
    } catch {
      // A broken logger must not stop the relay.
    }
  }

  async function work(signal: AbortSignal, graceMs: number, untilEmpty: boolean): Promise<void> {
    if (started) throw new ReceiverError('stopped', 'Expected a relay that has not been run, got one that has');
    started = true;
    const over = new AbortController();
    const ended = new AbortController();
    const abandoned = Promise.withResolvers<void>();
    const alarms = new Map(destinations.map(([name]) => [name as string, alarm()]));
    const onAbort = () => {
      for (const each of alarms.values()) each.ring();
      void endBy(graceMs);
    };
    const endBy = async (ms: number) => {
      if (!(await sleep(world.clock, ms, ended.signal))) return;
      over.abort();
      if (await sleep(world.clock, lastWaitMs, ended.signal)) abandoned.resolve();
    };
    signal.addEventListener('abort', onAbort, { once: true });
    const listening = untilEmpty ? undefined : listen(signal, (name) => alarms.get(name)?.ring());
    try {
      const lanes = Promise.all(
        destinations.flatMap(([name, destination]) => {
          const pump = pumpTo(outbox, name, destination, settings, over.signal);
          const lane = async () => {
            while (!signal.aborted) {
              const rung = alarms.get(name)!.heard();
              const { taken, pauseMs } = await pump();
              if (untilEmpty && taken === 0 && pauseMs === 0) return;
              if (pauseMs > 0) await sleep(world.clock, pauseMs, signal);
              else if (taken === 0) await sleep(world.clock, pollMs, rung);
            }
          };
          return Array.from({ length: outbox.takesAtOnce }, lane);
        }),
      );
      await Promise.race([Promise.all([lanes, listening]), abandoned.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
      ended.abort();
      await Promise.allSettled(destinations.map(([, destination]) => destination.close?.()));
    }
  }

  /** Polling is behind it, so whatever fails here only costs time. */
  async function listen(signal: AbortSignal, wake: (destination: string) => void): Promise<void> {
    while (outbox.listen && !signal.aborted) {
      await outbox.listen(wake, signal).catch((error: unknown) => report(error, 'listen'));
      await sleep(world.clock, 1_000, signal);
    }
  }

  return {
    async run(signal, { graceMs = 10_000 } = {}) {
      await work(signal, expectNumber('graceMs', graceMs, { atLeast: 0 }), false);
    },
    async drain(signal = new AbortController().signal) {
      await work(signal, 0, true);
    },
  };
}

/** Wakes all who have listened since it was last rung. */
function alarm(): { heard(): AbortSignal; ring(): void } {
  let bell = new AbortController();
  return {
    heard: () => bell.signal,
    ring() {
      bell.abort();
      bell = new AbortController();
    },
  };
}

function warn(error: unknown, destination: string): void {
  const warning = new Error(`relay to ${destination}: ${describeError(error)}`, { cause: error });
  warning.name = 'IdempotentReceiverWarning';
  process.emitWarning(warning);
}
