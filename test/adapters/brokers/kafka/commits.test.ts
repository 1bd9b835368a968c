import { expect, it } from 'vitest';
import { commits } from '../../../../adapters/brokers/kafka/commits.ts';
import { virtualWorld } from '../../../../src/testing/virtual-world.ts';

it('a flush ends after its commit, whoever else flushes meanwhile', async () => {
  const { clock, advance } = virtualWorld();
  const log: string[] = [];
  const flushed = commits({
    clock,
    next: () => 5,
    commit: async (next) => void log.push(`commit ${next}`),
    report: (error) => void log.push(String(error)),
  });
  flushed.advanced();
  for (const name of ['one', 'other']) void flushed.flush().then(() => log.push(name));
  await advance(1_000);
  expect(log).toEqual(['commit 5', 'one', 'other']);
});
