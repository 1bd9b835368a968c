import { ReceiverError } from '../../../src/errors.ts';
import { fetchedOffset } from './arrival.ts';
import type { KafkaBatchPayload, KafkaConsumer } from './client.ts';

/**
 * Finds out at the first batch whether `run` was called with `autoCommit: false` and `eachBatchAutoResolve: false`, which kafkajs doesn't tell. It seeks
 * to where the batch begins and handles nothing, so the same messages come again; on the way kafkajs shows what it does by itself: an
 * offset resolved, an offset committed. Costs one fetch, once.
 */
export interface SettingsCheck {
  /** True if the batch is to be left alone: it comes again. */
  probes(payload: KafkaBatchPayload): boolean;
  close(): void;
}

export function settingsCheck(consumer: KafkaConsumer, refuse: (setting: 'autoCommit' | 'eachBatchAutoResolve') => void): SettingsCheck {
  const probed = new Map<string, KafkaBatchPayload>();
  let checked = false;
  const on = consumer.on.bind(consumer) as (name: string, listener: (event: { payload: any }) => void) => () => void;
  const off = [
    // kafkajs commits where an auto-committing consumer is moved to; one that does not commit has no reason to.
    on('consumer.network.request', ({ payload }) => {
      if (probed.size > 0 && payload.apiName === 'OffsetCommit') refuse('autoCommit');
    }),
    // Told between kafkajs's resolving and its committing.
    on('consumer.end_batch_process', ({ payload }) => {
      const batch = probed.get(`${payload.topic}/${payload.partition}`);
      if (!batch) return;
      const first = firstOf(batch);
      const resolved = batch
        .uncommittedOffsets()
        .topics.find(({ topic }) => topic === payload.topic)
        // kafkajs gives the number as text here.
        ?.partitions.find(({ partition }) => Number(partition) === payload.partition);
      if (resolved && BigInt(resolved.offset) > first) {
        refuse('eachBatchAutoResolve');
        batch.resolveOffset(String(first - 1n));
      }
    }),
  ];

  function close(): void {
    checked = true;
    for (const end of off.splice(0)) end();
  }

  return {
    close,
    probes(payload) {
      if (checked) return false;
      const { topic, partition } = payload.batch;
      const name = `${topic}/${partition}`;
      if (probed.has(name)) {
        close();
        return false;
      }
      probed.set(name, payload);
      consumer.seek({ topic, partition, offset: String(firstOf(payload)) });
      return true;
    },
  };
}

function firstOf({ batch }: KafkaBatchPayload): bigint {
  return BigInt(fetchedOffset(batch));
}

const fix =
  'Expected `consumer.run` to be called with `autoCommit: false` and `eachBatchAutoResolve: false`, such as `consumer.run(kafka(…).run())`';

export function settingsError(got: string): ReceiverError {
  return new ReceiverError('broker', `${fix}, got ${got}`);
}
