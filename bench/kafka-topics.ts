import { randomBytes } from 'node:crypto';
import type { Admin, Kafka } from 'kafkajs';

/** All topics of a run begin with it, and so does nobody else's. */
export const run = `bench-${randomBytes(4).toString('hex')}`;

async function asAdmin<T>(kafka: Kafka, work: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = kafka.admin();
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.disconnect();
  }
}

export function makeTopic(kafka: Kafka, name: string, numPartitions: number): Promise<string> {
  const topic = `${run}-${name}`;
  return asAdmin(kafka, async (admin) => {
    await admin.createTopics({ topics: [{ topic, numPartitions }], waitForLeaders: false });
    while (!(await admin.listTopics()).includes(topic));
    return topic;
  });
}

/** A broker that others use too gets its disk back. */
export function deleteTopics(kafka: Kafka): Promise<void> {
  return asAdmin(kafka, async (admin) => {
    await admin.deleteTopics({ topics: (await admin.listTopics()).filter((topic) => topic.startsWith(run)) });
  });
}
