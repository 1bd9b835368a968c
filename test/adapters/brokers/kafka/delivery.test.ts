import { describe, expect, it } from 'vitest';
import { deliveryOf, keyOrder } from '../../../../adapters/brokers/kafka/delivery.ts';
import { messageKey, offset } from '../../../../adapters/brokers/kafka/index.ts';
import { header, keyOf } from '../../../../src/index.ts';

const raw = (more: object = {}) => ({ key: Buffer.from('k'), value: Buffer.from('{}'), timestamp: '1767225600000', offset: '42', ...more });
const delivery = (more: object = {}) => deliveryOf('orders', 3, raw(more), keyOrder);

describe('a record as a delivery', () => {
  it('has topic, partition and offset as its id, its value as the body, its key as the order, its timestamp as the time of sending', () => {
    expect(delivery()).toMatchObject({
      message: { id: 'orders/3/42', body: Buffer.from('{}'), topic: 'orders', partition: 3, offset: '42', key: Buffer.from('k') },
      orderingKey: 'k',
      sentAtMs: 1_767_225_600_000,
      offset: 42,
    });
    expect(delivery({ key: null, value: null, timestamp: '-1' })).toMatchObject({
      message: { body: null },
      orderingKey: undefined,
      sentAtMs: undefined,
    });
  });

  it('has headers as text: the last of several, base64 where bytes are no UTF-8, so that two ids never look alike', () => {
    const { message } = delivery({
      headers: {
        text: Buffer.from('é'),
        twice: [Buffer.from('1'), Buffer.from('2')],
        binary: Buffer.from([0xff]),
        other: Buffer.from([0xfe]),
        none: null,
        plain: 'p',
      },
    });
    expect({ ...message.headers }).toEqual({ text: 'é', twice: '2', binary: '/w==', other: '/g==', plain: 'p' });
    expect(Object.getPrototypeOf(message.headers)).toBeNull();
  });

  it('whose key is bytes has an order of its own for each', () => {
    expect(delivery({ key: Buffer.from([0xff]) }).orderingKey).not.toBe(delivery({ key: Buffer.from([0xfe]) }).orderingKey);
  });
});

describe('key strategies', () => {
  it('header(): the id is in a header of the record', () => {
    expect(header('message-id')(delivery({ headers: { 'message-id': Buffer.from('order-7') } }).message, {})).toBe('order-7');
  });

  it('messageKey(): the key of the record, different for different bytes; a record without one has no valid key', () => {
    const key = (bytes: Buffer | null) => messageKey()(delivery({ key: bytes }).message, {});
    expect(key(Buffer.from('order-7'))).toBe('order-7');
    const all = [Buffer.from([0xff]), Buffer.from([0xfe]), Buffer.from('/w=='), Buffer.from('bytes')].map((bytes) =>
      keyOf('s', key(bytes)),
    );
    expect(new Set(all).size).toBe(4);
    expect(() => key(null)).toThrow('Expected the record to have a key, got none');
  });

  it('offset(): topic, partition and offset, by the life of the topic, so that one that is made again has new messages', () => {
    const first = offset({ topicEpoch: '1' })(delivery().message, {});
    expect(first).toEqual(['1', 'orders', '3', '42']);
    expect(offset({ topicEpoch: '2' })(delivery().message, {})).not.toEqual(first);
    expect(() => offset({ topicEpoch: '' })).toThrow(
      'Expected `topicEpoch` to be 1 to 100 letters, digits, _ . or -, such as \'1\', got `""`',
    );
  });
});
