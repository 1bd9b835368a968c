import { describe, it } from 'vitest';
import { storeContract, transactionalStoreContract } from '../../../src/testing/index.ts';
import { postgresHarness } from './postgres-harness.ts';

for (const pipeline of [false, true]) {
  const name = `postgresStore, ${pipeline ? 'with' : 'without'} pipelining`;
  const open = () => postgresHarness({}, { pipeline } as object);
  storeContract({ describe, it, name, open });
  transactionalStoreContract({ describe, it, name, open });
}
