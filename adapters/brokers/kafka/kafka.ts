import { endsWithin, sleep } from '../../../src/clock.ts';
import { expectNumber, ReceiverError } from '../../../src/errors.ts';
import type { Receiver } from '../../../src/receiver.ts';
import { type Arrival, batchArrival, messageArrival } from './arrival.ts';
import { assignments } from './assignments.ts';
import { type KafkaBatchPayload, type KafkaMessagePayload, type KafkaRunConfig, restartsAfter } from './client.ts';
import { deliveryOf, type KafkaDelivery, keyOrder } from './delivery.ts';
import { horizons } from './horizon.ts';
import { type Report, unlessAborted } from './link.ts';
import { JoinAnew, membership } from './membership.ts';
import { checkOptions, type KafkaOptions } from './options.ts';
import { revival } from './revival.ts';
import { settingsCheck, settingsError } from './settings.ts';

/** Turns the batches of a kafkajs consumer into deliveries for a receiver, and its verdicts into offsets. */
export interface KafkaAdapter {
  /**
   * What `consumer.run` takes: the right `eachBatch`, and kafkajs's own committing and resolving off. A consumer that kafkajs gives up is run with it again,
   * until `stop` is called or the consumer is disconnected: of its own `stop` kafkajs does not tell while it does not run.
   */
  run(): KafkaRunConfig;
  /** For a `consumer.run` of your own, with `autoCommit: false` and `eachBatchAutoResolve: false`. Other settings are refused at the first batch. */
  readonly eachBatch: (payload: KafkaBatchPayload) => Promise<void>;
  /**
   * For a `consumer.run` of your own, with `autoCommit: false`, which is looked at too. One message at a time is claimed, so it is slower than `eachBatch`.
   */
  readonly eachMessage: (payload: KafkaMessagePayload) => Promise<void>;
  /**
   * Begins nothing more, stops the receiver (unless `stopReceiver` is false), and commits what is done. `graceMs` is for running handlers, 10,000 by
   * default; `abandoned` counts those that did not end. It takes ten seconds more at most, also if they don't end and Kafka does not answer. Disconnect
   * the consumer afterwards: while it is a member its offsets can be committed.
   */
  stop(options?: { readonly graceMs?: number }): Promise<{ readonly abandoned: number }>;
}

/** `again`: it is to come once more. `moved`: the consumer reads elsewhere. */
type Outcome = 'taken' | 'again' | 'moved';

/** For what is left to tell Kafka after the last handler has ended: offsets; and then that partitions are given back. */
const flushMs = 4_000;

/** How long a batch that can't be handled is held back, so that it does not come again at once. */
const idleMs = 500;

/**
 * Wraps a kafkajs consumer around a receiver.
 *
 * ```ts
 * const adapter = kafka(receiver, { consumer, deadLetter: { producer, topic: 'orders.dead' } });
 * await consumer.run(adapter.run());
 * ```
 *
 * Made before `consumer.run` is called, so that it hears of the first assignment. @throws ReceiverError `invalid-option`, `retention-too-short`
 */
export function kafka(receiver: Receiver, options: KafkaOptions): KafkaAdapter {
  const checked = checkOptions(receiver, options);
  const { consumer } = checked;
  const { clock } = receiver.world;
  const report: Report = (error, during) => {
    try {
      checked.onError(error, during);
    } catch {
      // A broken logger must not stop the partition.
    }
  };
  let refusal: Error | undefined;
  let stopping: Promise<{ abandoned: number }> | undefined;

  const assigned = assignments(receiver, checked, () => member, report);
  const revived = revival(consumer, { world: receiver.world, report });
  const member = membership(consumer, {
    clock,
    report,
    isCommitting: () => assigned.isCommitting(),
    hooks: {
      lost: (expelled) => assigned.close(expelled),
      leaving: () => assigned.halt(),
      overdue,
      givenUp,
      foreignCommit: () =>
        refuse(settingsError('offsets that somebody else has committed: `autoCommit` is on, or `commitOffsets` is called')),
    },
  });
  const settings = settingsCheck(consumer, (setting) => refuse(settingsError(`\`${setting}: true\``)));
  const horizon =
    checked.admin && checked.horizonMs === undefined && !checked.watermark?.watermark.exact ? horizons(checked.admin) : undefined;

  function overdue(): void {
    report(new ReceiverError('broker', 'The consumer has lost its membership and does not join its group again'), 'membership');
    try {
      // A batch makes it join anew, and where there is nothing new, something old. It reads what it had before, if it reads at all; if it
      // joins first, it goes on from there.
      for (const { topic, partition, from } of assigned.before()) consumer.seek({ topic, partition, offset: String(from) });
    } catch (error) {
      report(error, 'membership');
    }
  }

  function givenUp(cause: unknown): void {
    // The user has it stopped: by `restartOnFailure`, or by settings that are refused.
    if (restartsAfter(cause) || refusal || revived.revive()) return;
    const what = 'kafkajs does not start this consumer again: connect and run it again, or start the process anew';
    report(new ReceiverError('broker', what, { cause }), 'membership');
  }

  function refuse(error: Error): Error {
    if (!refusal) {
      // kafkajs stops a consumer for good at an error that says that trying again is no use.
      refusal = Object.assign(error, { retriable: false });
      report(refusal, 'settings');
    }
    return refusal;
  }

  async function handle(arrival: Arrival): Promise<Outcome> {
    if (refusal) throw refusal;
    if (stopping) {
      arrival.pause();
      return 'again';
    }
    if (member.isNew()) {
      throw refuse(
        settingsError('a batch before this consumer has joined its group: `kafka(…)` was given another one, or made after `run`'),
      );
    }
    // It is about to join anew, or has failed to and would read what it had for ever: kafkajs tells of neither.
    if (!member.isStable()) throw new JoinAnew();
    if (!(await isHorizonFit(arrival))) return holdBack(arrival);
    const { topic, partition } = arrival;
    const assignment = assigned.of(`${topic}/${partition}`, arrival);
    let outcome: Outcome = 'again';
    const handled = (async () => {
      const runner = await assignment.runner;
      // It may have taken a while.
      if (!runner || runner.halted() || stopping || !member.isStable()) return;
      if (assignment.isAhead(runner)) {
        consumer.seek({ topic, partition, offset: String(runner.tracker.next) });
        outcome = 'moved';
        return;
      }
      runner.take(deliveriesOf(arrival), arrival.reach);
      await runner.idle();
      if (runner.halted()) await runner.commits?.flush();
      if (runner.closed()) return;
      assignment.pauseIfFull(runner);
      outcome = 'taken';
    })();
    const ended = unlessAborted(assignment.over, handled);
    await member.beat(arrival.heartbeat, ended);
    await ended;
    if (!member.isStable()) return 'again';
    return outcome === 'again' ? holdBack(arrival) : outcome;
  }

  /** So that what can't be handled now does not come again at once. */
  async function holdBack(arrival: Arrival): Promise<'again'> {
    const enough = new AbortController();
    await member.beat(arrival.heartbeat, sleep(clock, idleMs, enough.signal));
    // It has come back early if the membership is lost.
    enough.abort();
    return 'again';
  }

  function deliveriesOf({ topic, partition, messages }: Arrival): KafkaDelivery[] {
    const orderingKey: typeof keyOrder = (record) => {
      try {
        return checked.orderingKey(record);
      } catch (error) {
        report(error, 'order');
        return keyOrder(record);
      }
    };
    return messages.map((message) => deliveryOf(topic, partition, message, orderingKey));
  }

  /** False while it can't be found out: then nothing is handled. */
  async function isHorizonFit({ topic, heartbeat }: Arrival): Promise<boolean> {
    if (!horizon) return true;
    try {
      const reading = horizon(topic);
      await member.beat(
        heartbeat,
        reading.catch(() => {}),
      );
      const { ms, where } = await reading;
      receiver.requireRetention(ms, where);
      return true;
    } catch (error) {
      if (error instanceof ReceiverError && error.code === 'retention-too-short') throw refuse(error);
      report(error, 'settings');
      return false;
    }
  }

  /** Nothing reaches kafkajs but a refusal, which is meant to stop the consumer, and what makes it join anew. */
  async function guarded(arrival: Arrival): Promise<Outcome> {
    try {
      return await handle(arrival);
    } catch (error) {
      if (error === refusal || error instanceof JoinAnew) throw error;
      report(error, 'process');
      return holdBack(arrival);
    }
  }

  const isProbe: typeof settings.probes = (arrival, batch) => !refusal && !stopping && member.isStable() && settings.probes(arrival, batch);

  async function eachBatch(payload: KafkaBatchPayload): Promise<void> {
    if ((await guarded(batchArrival(payload))) !== 'taken') return;
    try {
      payload.resolveOffset(payload.batch.messages.at(-1)!.offset);
    } catch {
      // It has joined anew meanwhile, and reads from the committed offset.
    }
  }

  async function eachMessage(payload: KafkaMessagePayload): Promise<void> {
    const { topic, partition, message } = payload;
    const arrival = messageArrival(payload, consumer);
    if (isProbe(arrival)) return;
    const outcome = await guarded(arrival);
    // kafkajs goes on behind the message when this returns, unless it is told where to go. Not if it is about to join anew: told now, it would go there instead
    // of to what is committed, and leave out messages before this one that wait for their next try.
    if (outcome === 'again' && !stopping && member.isStable()) consumer.seek({ topic, partition, offset: message.offset });
  }

  async function stopAll(graceMs: number): Promise<{ abandoned: number }> {
    revived.close();
    assigned.halt();
    const { abandoned } = checked.stopReceiver ? await receiver.stop({ graceMs }) : { abandoned: 0 };
    await endsWithin(clock, checked.stopReceiver ? flushMs : graceMs + flushMs, assigned.drained());
    assigned.close(false);
    await endsWithin(clock, flushMs, assigned.left());
    settings.close();
    member.close();
    return { abandoned };
  }

  return {
    run() {
      settings.close();
      const { partitionsConsumedConcurrently } = checked;
      const config = { autoCommit: false, eachBatchAutoResolve: false, partitionsConsumedConcurrently, eachBatch } as const;
      revived.expect(config);
      return config;
    },
    async eachBatch(payload) {
      if (!isProbe(batchArrival(payload), payload)) await eachBatch(payload);
    },
    eachMessage,
    async stop({ graceMs = 10_000 } = {}) {
      expectNumber('graceMs', graceMs, { atLeast: 0 });
      stopping ??= stopAll(graceMs);
      return stopping;
    },
  };
}
