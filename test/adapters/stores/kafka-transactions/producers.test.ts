import { Partitioners } from 'kafkajs';
import { expect, it } from 'vitest';
import { placeOf } from '../../../../adapters/stores/kafka-transactions/producers.ts';

it('a message is placed as kafkajs and Java clients place it: by its partition, else by its key, text or bytes', () => {
  const theirs = Partitioners.DefaultPartitioner();
  const keys = ['', 'k', 'order-7', 'é€x', Buffer.from([0xff, 0, 0xfe]), ...Array.from({ length: 500 }, (_, i) => `${i}`.repeat(i % 7))];
  for (const partitions of [1, 3, 12]) {
    const partitionMetadata = Array.from({ length: partitions }, (_, partitionId) => ({ partitionId, leader: 1 }));
    const placed = (message: { key: string | Buffer | null; partition: number | undefined }) => {
      const expected = theirs({ topic: 't', partitionMetadata: partitionMetadata as never, message: { ...message, value: null } as never });
      expect(placeOf({ topic: 't', partitionMetadata, message }), `${message.key} in one of ${partitions}`).toBe(expected);
    };
    for (const key of keys) placed({ key, partition: undefined });
    placed({ key: 'k', partition: 0 });
    placed({ key: null, partition: partitions - 1 });
  }
});
