import { ReceiverError } from '../../../src/errors.ts';
import type { Arrival } from './arrival.ts';
import { eventsOf, type KafkaBatchPayload, type KafkaConsumer } from './client.ts';

/**
 * Finds out at the first batch or message whether `run` was called with `autoCommit: false` and `eachBatchAutoResolve: false`, which kafkajs doesn't tell.
 * It seeks to where that begins and handles nothing, so the same messages come again; on the way kafkajs shows what it does by itself: an
 * offset resolved, an offset committed. Costs one fetch, once.
 */
export interface SettingsCheck {
  /** True if what has arrived is to be left alone: it comes again. `batch`: where it is one. */
  probes(arrival: Arrival, batch?: KafkaBatchPayload): boolean;
  close(): void;
}

export function settingsCheck(consumer: KafkaConsumer, refuse: (setting: 'autoCommit' | 'eachBatchAutoResolve') => void): SettingsCheck {
  const probed = new Map<string, { readonly from: number; readonly batch: KafkaBatchPayload | undefined }>();
  let checked = false;
  const on = eventsOf(consumer);
  const off = [
    // kafkajs commits where an auto-committing consumer is moved to; one that does not commit has no reason to.
    on('consumer.network.request', ({ payload }) => {
      if (probed.size > 0 && payload.apiName === 'OffsetCommit') refuse('autoCommit');
    }),
    // Told between kafkajs's resolving and its committing.
    on('consumer.end_batch_process', ({ payload }) => {
      const { from, batch } = probed.get(`${payload.topic}/${payload.partition}`) ?? {};
      // After a message kafkajs resolves its offset, as it should.
      if (!batch) return;
      const resolved = batch
        .uncommittedOffsets()
        .topics.find(({ topic }) => topic === payload.topic)
        // kafkajs gives the number as text here.
        ?.partitions.find(({ partition }) => Number(partition) === payload.partition);
      if (resolved && Number(resolved.offset) > from!) {
        refuse('eachBatchAutoResolve');
        batch.resolveOffset(String(from! - 1));
      }
    }),
  ];

  function close(): void {
    checked = true;
    for (const end of off.splice(0)) end();
  }

  return {
    close,
    probes({ topic, partition, from }, batch) {
      if (checked) return false;
      const name = `${topic}/${partition}`;
      if (probed.has(name)) {
        close();
        return false;
      }
      probed.set(name, { from, batch });
      consumer.seek({ topic, partition, offset: String(from) });
      return true;
    },
  };
}

const fix =
  'Expected `consumer.run` to be called with `autoCommit: false` and `eachBatchAutoResolve: false`, such as `consumer.run(kafka(…).run())`';

export function settingsError(got: string): ReceiverError {
  return new ReceiverError('broker', `${fix}, got ${got}`);
}
