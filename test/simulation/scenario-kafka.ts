import { hash, Stream } from './chance.ts';
import type { Scenario } from './scenario.ts';

/** What is decided beforehand of a Kafka, its consumers and the adapter. The session is as long as an SQS queue would hide a message. */
export interface KafkaScenario {
  readonly partitions: number;
  readonly order: 'key' | 'partition' | 'none';
  readonly heartbeatMs: number;
  readonly rebalanceMs: number;
  readonly maxWaitMs: number;
  readonly maxBatch: number;
  readonly partitionsAtOnce: number;
  readonly window: number;
  /** How often a record is followed by one that is not shown. */
  readonly gaps: number;
  /** Progress is kept in the transactions of the effects. */
  readonly watermark: boolean;
  readonly requestTimeoutMs: number;
  /** Of Kafka transactions. */
  readonly flushTimeoutMs: number;
  readonly markerMs: number;
}

export function kafkaScenarioOf({ seed, way, broker, visibilityMs, isolation, relaxed }: Omit<Scenario, 'kafka'>): KafkaScenario {
  const plan = new Stream(hash(seed, `kafka ${way}`));
  return {
    partitions: plan.pick([1, 1, 2, 3]),
    order: plan.pick(['key', 'key', 'partition', 'none']),
    heartbeatMs: Math.floor(visibilityMs / plan.pick([3, 5])),
    rebalanceMs: visibilityMs * plan.pick([1, 2, 4]),
    maxWaitMs: Math.floor(visibilityMs / plan.pick([4, 8])),
    maxBatch: plan.pick([1, 2, 500]),
    partitionsAtOnce: plan.pick([1, 1, 3]),
    window: plan.pick([1, 3, 10_000]),
    gaps: plan.pick([0, 0, 0.3]),
    // Values beside the records are neither compared nor taken back by this database.
    watermark: plan.happens(0.3) && way === 'transactional' && broker === 'kafka' && isolation === 'exclusive' && !relaxed,
    requestTimeoutMs: Math.max(2_000, Math.floor(visibilityMs / plan.pick([1, 3]))),
    flushTimeoutMs: Math.max(1_000, Math.floor(visibilityMs / plan.pick([1, 4]))),
    markerMs: plan.pick([5, 5, 300]),
  };
}
