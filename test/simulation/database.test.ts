import { describe, it } from 'vitest';
import { type Clause, runClause, storeClauses, type TransactionalHarness, transactionalClauses } from '../../src/testing/index.ts';
import { Kernel } from '../../src/testing/virtual/kernel.ts';
import { NetworkError } from '../../src/testing/virtual/network.ts';
import { unitStore, type VirtualTx } from '../../src/testing/virtual/units.ts';
import { FleetDatabase } from './database.ts';
import type { Run } from './ledger.ts';

/** The database of the simulator is a store like any other: what it lets pass would pass in every run. */
for (const isolation of ['exclusive', 'optimistic'] as const) {
  const open = (): TransactionalHarness<VirtualTx<Run>> => {
    const kernel = new Kernel();
    const effects: string[] = [];
    const db = new FleetDatabase(kernel, { commit: (runs) => void effects.push(...runs.map(({ key }) => key)), undo() {} }, isolation);
    let lost: 'request' | 'reply' | 'silent' | undefined;
    async function call<T>(op: string, run: () => T | Promise<T>): Promise<T> {
      if (op === 'outcome' && lost === 'silent') throw new NetworkError('lost');
      if (op !== 'commit' || !lost) return await run();
      const which = lost;
      if (which !== 'silent') lost = undefined;
      if (which !== 'request') await run();
      throw new NetworkError('lost');
    }
    const store = unitStore(db, { verbs: { call }, statements: { call } }, async () => {}, { count() {} }, new Set());
    return {
      store,
      elapse: (ms) => void (kernel.now += ms),
      write: (tx, text) => tx.write({ key: text } as Run),
      read: async () => effects,
      failCommit: (which) => void (lost = which),
    };
  };
  describe(`the simulated database (${isolation})`, () => {
    // It never restarts, nobody damages its records, and workers do not look at them.
    const shown = storeClauses.filter(({ needs }) => needs === undefined || needs === 'another');
    // Where all units run at once, the second one is refused at its commit instead of waiting, and the message comes again.
    const units = transactionalClauses.filter(({ id }) => isolation === 'exclusive' || !id.startsWith('22'));
    for (const clause of [...shown, ...units])
      it(`${clause.id}: ${clause.says}`, () =>
        runClause<TransactionalHarness>(clause as Clause<TransactionalHarness>, open as () => TransactionalHarness));
  });
}
