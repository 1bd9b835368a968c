import { describe, it } from 'vitest';
import { storeContract, transactionalStoreContract } from '../../../src/testing/index.ts';
import { postgresHarness, skipOfPartitions } from './postgres-harness.ts';

for (const pipeline of [false, true]) {
  const name = `postgresStore, ${pipeline ? 'with' : 'without'} pipelining`;
  const open = () => postgresHarness({}, { pipeline } as object);
  storeContract({ describe, it, name, open });
  transactionalStoreContract({ describe, it, name, open });
}

const partitioned = { describe, it, name: 'postgresStore in partitions', open: () => postgresHarness({ partitions: 'daily' }) };
storeContract({ ...partitioned, skip: skipOfPartitions });
transactionalStoreContract({ ...partitioned, skip: skipOfPartitions });
