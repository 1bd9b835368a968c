import { sleep, type World } from '../../../src/clock.ts';
import type { Verdict } from '../../../src/message.ts';
import type { KafkaProducer } from './client.ts';
import type { KafkaDelivery, KafkaRecord } from './delivery.ts';
import { backoffMs, type Report } from './link.ts';

/** A message that can't ever succeed, and why. */
export interface KafkaDeadLetter {
  readonly record: KafkaRecord;
  readonly reason: Extract<Verdict, { action: 'dead-letter' }>['reason'];
  /** For people: the error's text, never the payload. */
  readonly detail: string;
  /** How often it has been tried; 0 if it never reached the handler. */
  readonly attempts: number;
}

/** Where messages go that can't ever succeed. Their offsets are passed only when they have arrived there. There is no default. */
export type KafkaDeadLetterOption =
  /**
   * They are sent to this topic with key, value and headers as they were, and headers that say where they come from and why:
   * `dead-letter-reason`, `-detail`, `-attempts`, `-topic`, `-partition`, `-offset`, `-timestamp`. A crash, a rebalance or a stop meanwhile may send a
   * copy twice. While it can't be sent, because the topic is not there or the copy too long for it, that is told and tried again: its offset waits.
   */
  | { readonly producer: KafkaProducer; readonly topic: string }
  /** Your own. While it rejects it is called again, with a growing delay. */
  | ((letter: KafkaDeadLetter) => unknown)
  /** They are gone, but for what the store keeps of parked ones. */
  | 'drop';

const maxDelayMs = 30_000;

/** Puts messages aside. True when one has arrived; false if `over` was aborted before. Never rejects. */
export function deadLettering(
  option: KafkaDeadLetterOption,
  world: World,
  report: Report,
): (delivery: KafkaDelivery, verdict: Extract<Verdict, { action: 'dead-letter' }>, over: AbortSignal) => Promise<boolean> {
  const put = putting(option);
  return async (delivery, verdict, over) => {
    for (let failures = 0; !over.aborted; failures++) {
      try {
        await put(delivery, verdict);
        return true;
      } catch (error) {
        report(error, 'dead-letter');
        await sleep(world.clock, backoffMs(failures, maxDelayMs, world), over);
      }
    }
    return false;
  };
}

function putting(
  option: KafkaDeadLetterOption,
): (delivery: KafkaDelivery, verdict: Extract<Verdict, { action: 'dead-letter' }>) => unknown {
  if (option === 'drop') return () => {};
  if (typeof option === 'function') {
    return ({ message }, { reason, detail, attempts }) => option({ record: message, reason, detail, attempts });
  }
  const { producer, topic } = option;
  return (delivery, verdict) => producer.send({ topic, acks: -1, messages: [deadLetterOf(delivery, verdict)] });
}

/** The message as it was, and what happened. */
function deadLetterOf({ raw, message }: KafkaDelivery, { reason, detail, attempts }: Extract<Verdict, { action: 'dead-letter' }>) {
  // No prototype: a header called `__proto__` is a name like any other.
  const headers: Record<string, (Buffer | string)[]> = Object.create(null);
  for (const [name, value] of Object.entries(raw.headers ?? {})) headers[name] = [value].flat().filter(isWritten);
  return {
    key: raw.key,
    value: raw.value,
    headers: {
      ...headers,
      'dead-letter-reason': reason,
      'dead-letter-detail': detail,
      'dead-letter-attempts': String(attempts),
      'dead-letter-topic': message.topic,
      'dead-letter-partition': String(message.partition),
      'dead-letter-offset': message.offset,
      'dead-letter-timestamp': raw.timestamp,
    },
  };
}

/** For a header called `constructor` or the like kafkajs gives what every object inherits too; and null for one without a value. */
function isWritten(value: unknown): value is Buffer | string {
  return typeof value === 'string' || Buffer.isBuffer(value);
}
