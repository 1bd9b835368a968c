import { describeError, ReceiverError } from '../../../src/errors.ts';
import type { KafkaAdmin } from './client.ts';

/** The longest time after which a topic can bring a message again, read once for each. @throws ReceiverError `broker` if it can't be read */
export function horizons(admin: KafkaAdmin): (topic: string) => Promise<Horizon> {
  const known = new Map<string, Promise<Horizon>>();
  return (topic) => {
    let reading = known.get(topic);
    if (!reading) {
      reading = horizonOf(admin, topic);
      known.set(topic, reading);
      reading.catch(() => known.delete(topic));
    }
    return reading;
  };
}

interface Horizon {
  readonly ms: number;
  readonly where: string;
}

const topicType = 2;
const brokerType = 4;

/**
 * As long as the topic keeps it. A consumer that was away, a group whose offsets were
 * forgotten (`offsets.retention.minutes` after its last member has left) and an offset that was set back all begin at an old message.
 */
async function horizonOf(admin: KafkaAdmin, topic: string): Promise<Horizon> {
  try {
    const { brokers } = await admin.describeCluster();
    const { resources } = await admin.describeConfigs({
      resources: [
        { type: topicType, name: topic, configNames: ['retention.ms', 'cleanup.policy'] },
        { type: brokerType, name: String(brokers[0]?.nodeId), configNames: ['offsets.retention.minutes'] },
      ],
      includeSynonyms: false,
    });
    const value = (name: string) =>
      resources.flatMap(({ configEntries }) => configEntries).find(({ configName }) => configName === name)?.configValue ?? '';
    const retentionMs = Number(value('retention.ms') || Number.NaN);
    if (!Number.isFinite(retentionMs)) throw new Error(`retention.ms is ${JSON.stringify(value('retention.ms'))}`);
    const forgotten = Number(value('offsets.retention.minutes')) * 60_000;
    const keepsAll = retentionMs < 0 || !value('cleanup.policy').split(',').includes('delete');
    return {
      ms: keepsAll ? Number.POSITIVE_INFINITY : retentionMs,
      where: keepsAll
        ? `topic ${topic} keeps messages for ever: say how far back you will ever begin, by option \`horizonMs\``
        : `retention.ms of topic ${topic}; without a member the group's offsets are forgotten after ${forgotten} ms, and it begins anew`,
    };
  } catch (cause) {
    throw new ReceiverError('broker', `Expected to read retention.ms of topic ${topic}, got ${describeError(cause)}`, { cause });
  }
}
