import { describe, expect, it } from 'vitest';
import { answersAsTheModel } from './model.ts';
import { postgresHarness } from './postgres-harness.ts';

/** A tick is long, because the server's clock goes on by itself. */
const tickMs = 100_000;

describe('postgresStore answers as memoryStore does', { timeout: 900_000 }, () => {
  it.each([
    { units: false, partitions: undefined },
    { units: true, partitions: undefined },
    { units: false, partitions: 'daily' as const },
    { units: true, partitions: 'daily' as const },
  ])('in random sequences of 30 commands (units: $units, partitions: $partitions)', async ({ units, partitions }) => {
    const harness = await postgresHarness(partitions ? { partitions } : {});
    const stores = [harness.store, await harness.another!()] as never[];
    try {
      await answersAsTheModel({
        open: async () => {
          await harness.db.query(`truncate ${harness.schema}.records`);
          return { stores, elapse: harness.elapse, close: () => {} };
        },
        runs: units ? 300 : 1_000,
        commands: 30,
        tickMs,
        compareEvery: 10,
        units,
        purgesItself: partitions !== undefined,
      });
    } finally {
      await harness.close!();
    }
    expect.hasAssertions();
  });
});
