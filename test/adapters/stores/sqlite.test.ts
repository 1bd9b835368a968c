import { describe, it } from 'vitest';
import { storeContract, transactionalStoreContract } from '../../../src/testing/index.ts';
import { drivers, sqliteHarness } from './sqlite-harness.ts';

for (const [driver, open] of Object.entries(drivers)) {
  const harness = { describe, it, name: `sqliteStore on ${driver}`, open: () => sqliteHarness(open) };
  storeContract(harness);
  transactionalStoreContract(harness);
}
