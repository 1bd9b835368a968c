import { afterEach, describe, expect, it } from 'vitest';
import type { Partitions } from '../../../adapters/stores/postgres/index.ts';
import { ask } from '../../../src/testing/clauses/kit.ts';
import { service } from '../../support/services/index.ts';
import { age, partsOf, postgresHarness, turn } from './postgres-harness.ts';
import { race, startChild } from './processes.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function stand(partitions?: Partitions) {
  const harness = await postgresHarness(partitions ? { partitions } : {});
  cleanups.push(() => harness.close!());
  if (partitions) {
    // A border every now and then, under everything that goes on.
    let turning = Promise.resolve();
    const timer = setInterval(() => {
      turning = turning.then(async () => {
        if ((await partsOf(harness.db, harness.schema)).all < 20) await turn(harness.db, harness.schema).catch(() => {});
      });
    }, 150);
    cleanups.push(
      () => turning,
      () => clearInterval(timer),
    );
  }
  const { url } = await service('postgres');
  const start = (kind: 'claim' | 'receive', client: number, keys = 10_000, size = 100) =>
    startChild(
      new URL('./postgres-child.ts', import.meta.url),
      [kind, url, harness.schema, client, keys, size, ...(partitions ? [partitions] : [])],
      cleanups,
    );
  return { harness, start };
}

describe.each([undefined, 'daily' as const])('processes that share a Postgres (partitions: %s)', { timeout: 180_000 }, (partitions) => {
  it('16 of them claim each of 10,000 keys exactly once', async () => {
    const { harness, start } = await stand(partitions);
    const children = Array.from({ length: 16 }, (_, client) => start('claim', client));
    await race(children);
    await Promise.all(children.map(({ gone }) => gone));
    const batches = children.flatMap((child) => child.batches);
    expect(batches.flatMap(({ others }) => others)).toEqual([]);
    const claimed = batches.flatMap((batch) => batch.claimed);
    expect([claimed.length, new Set(claimed).size]).toEqual([10_000, 10_000]);
    const winners = children.filter((child) => child.batches.some((batch) => batch.claimed.length > 0));
    expect(winners.length, 'no race, if few have won anything').toBeGreaterThan(4);
    if (partitions) expect((await partsOf(harness.db, harness.schema)).part, 'borders').toBeGreaterThan(3);
  });

  it('a claimer that is killed leaves claims that others get when the leases have ended', async () => {
    const { harness, start } = await stand(partitions);
    const child = start('claim', 0);
    child.onBatch = () => child.batches.length === 5 && child.process.kill('SIGKILL');
    await race([child]);
    expect(await child.gone).toBe('SIGKILL');
    const { claimed } = await harness.store.stats!();
    expect(claimed).toBeGreaterThanOrEqual(500);
    expect(claimed % 100, 'a batch is claimed as a whole or not at all').toBe(0);
    await age(harness.db, harness.schema, 30_001);
    const answers = await harness.store.claim(Array.from({ length: 10_000 }, (_, i) => ask(i, 'another')));
    const orphans = answers.filter((answer) => answer.state === 'claimed' && answer.orphaned && answer.attempt === 2);
    const fresh = answers.filter((answer) => answer.state === 'claimed' && !answer.orphaned && answer.attempt === 1);
    expect([orphans.length, fresh.length]).toEqual([claimed, 10_000 - claimed]);
  });

  it('transactional receivers that are killed and stopped have each effect exactly once, and nothing is lost', async () => {
    const { harness, start } = await stand(partitions);
    const messages = 3_000;
    let kills = 0;
    let stops = 0;
    for (let round = 0; round < 5; round++) {
      const children = [0, 1, 2].map((client) => start('receive', client, messages, 50));
      const [victim, zombie] = children as [(typeof children)[0], (typeof children)[0], ...unknown[]];
      let seen = 0;
      victim.onBatch = () => {
        if (++seen === 3 + round && victim.process.kill('SIGKILL')) kills++;
      };
      zombie.onBatch = () => {
        // Longer than the server lets a transaction stand idle.
        if (zombie.batches.length !== 5 || !zombie.process.kill('SIGSTOP')) return;
        stops++;
        setTimeout(() => zombie.process.kill('SIGCONT'), 1_500);
      };
      await race(children);
      expect(await victim.gone).toBe('SIGKILL');
      if (round < 4) for (const child of children) child.process.kill('SIGKILL');
      await Promise.all(children.map(({ gone }) => gone));
    }
    const effects = await harness.read();
    expect([effects.length, new Set(effects).size]).toEqual([messages, messages]);
    expect(kills).toBe(5);
    expect(stops).toBeGreaterThan(0);
  });
});
