import { isUtf8 } from 'node:buffer';
import { ReceiverError, refuseOption } from '../../../src/errors.ts';
import type { KeyStrategy } from '../../../src/key.ts';
import type { KafkaRecord } from './delivery.ts';

/**
 * The record's own key is the id. Only for topics in which no two messages that are rightly different have the same key: with the usual key, the
 * id of a customer or an order, all but the first would be taken for duplicates.
 */
export function messageKey(): KeyStrategy {
  return (message) => {
    const { key } = message as KafkaRecord;
    if (!Buffer.isBuffer(key)) throw new ReceiverError('invalid-key', 'Expected the record to have a key, got none');
    // Different bytes must not become the same text; two parts never equal one.
    return isUtf8(key) ? key.toString() : ['bytes', key.toString('base64')];
  };
}

/**
 * Topic, partition and offset are the id. Covers redeliveries, and only them: a record that its producer sends twice has two offsets, and is
 * handled twice. A topic that is deleted and made again begins at offset 0 again, and its new messages would be taken for duplicates of the
 * old ones: give each life of the topic another `topicEpoch`.
 */
export function offset(options: { readonly topicEpoch: string }): KeyStrategy {
  const epoch = checkEpoch(options?.topicEpoch);
  return (message) => {
    const { topic, partition, offset: at } = message as KafkaRecord;
    return [epoch, topic, String(partition), at];
  };
}

export function checkEpoch(epoch: unknown): string {
  if (typeof epoch === 'string' && /^[\w.-]{1,100}$/.test(epoch)) return epoch;
  return refuseOption('topicEpoch', "1 to 100 letters, digits, _ . or -, such as '1'", epoch);
}
