/** pg-transactional-outbox in polling mode, set up as its README says, with its startup protection off, and in its fastest way: no order. */
import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import {
  DatabaseSetup,
  getDisabledLogger,
  initializeMessageStorage,
  initializePollingMessageListener,
  type PollingListenerConfig,
} from 'pg-transactional-outbox';

const schema = 'peer';
const batchSize = 100;

export async function openPeer(pool: pg.Pool, connectionString: string) {
  const names = { outboxOrInbox: 'outbox', database: 'postgres', schema, table: 'outbox', listenerRole: 'postgres' } as const;
  const polling = { ...names, nextMessagesSchema: schema, nextMessagesName: 'next_outbox_messages' };
  await pool.query(DatabaseSetup.dropAndCreateTable(names));
  await pool.query(DatabaseSetup.createPollingFunction(polling));
  await pool.query(DatabaseSetup.setupPollingIndexes(polling));
  const config: PollingListenerConfig = {
    outboxOrInbox: 'outbox',
    dbListenerConfig: { connectionString },
    settings: {
      dbSchema: schema,
      dbTable: 'outbox',
      nextMessagesFunctionSchema: schema,
      nextMessagesFunctionName: 'next_outbox_messages',
      nextMessagesBatchSize: batchSize,
      nextMessagesPollingIntervalInMs: 10,
      enableMaxAttemptsProtection: false,
      enablePoisonousMessageProtection: false,
    },
  };
  const store = initializeMessageStorage(config, getDisabledLogger());
  return {
    publish: (client: pg.PoolClient, key: string, payload: unknown) =>
      store(
        { id: randomUUID(), aggregateType: 'order', aggregateId: key, messageType: 'placed', concurrency: 'parallel', payload },
        client,
      ),
    /** Sends until so many have been handled. */
    async relay(count: number, send: (key: string, payload: unknown) => Promise<unknown>): Promise<void> {
      const { promise, resolve } = Promise.withResolvers<void>();
      let handled = 0;
      const [shutdown] = initializePollingMessageListener(
        config,
        {
          async handle({ aggregateId, payload }) {
            await send(aggregateId, payload);
            if (++handled === count) resolve();
          },
        },
        getDisabledLogger(),
        { batchSizeStrategy: async () => batchSize },
      );
      await promise;
      await shutdown();
    },
    clear: () => pool.query(`truncate ${schema}.outbox`),
  };
}
