import { adminClauses } from './clauses/admin.ts';
import { claimClauses } from './clauses/claim.ts';
import { type JournalHarness, journalClauses } from './clauses/journal.ts';
import type { Clause, StoreHarness } from './clauses/kit.ts';
import { lifetimeClauses } from './clauses/lifetime.ts';
import { ownershipClauses } from './clauses/ownership.ts';
import { type TransactionalHarness, unitClauses } from './clauses/unit.ts';
import { upkeepClauses } from './clauses/upkeep.ts';

export { type JournalHarness, journalClauses } from './clauses/journal.ts';
export type { Clause, StoreHarness } from './clauses/kit.ts';
export type { TransactionalHarness } from './clauses/unit.ts';

/** The contract of `DedupStore` and `StoreAdmin`, one clause a test, with the numbers of `src/store.ts`. */
export const storeClauses: readonly Clause[] = [
  ...claimClauses,
  ...ownershipClauses,
  ...lifetimeClauses,
  ...upkeepClauses,
  ...adminClauses,
];

/** The contract of `TransactionalStore`. */
export const transactionalClauses: readonly Clause<TransactionalHarness>[] = unitClauses;

/** The functions of a test runner: those of vitest, jest and `node:test` fit. */
export interface TestRunner {
  describe(name: string, body: () => void): unknown;
  readonly it: ((name: string, run: () => Promise<void>) => unknown) & { skip(name: string, run: () => Promise<void>): unknown };
}

/** A clause that a store can't fulfil, or a harness can't show, and why. */
export interface Skip {
  /** `14` for all clauses of that number, `14a` or `11a parked` for one, `admin` for all of `StoreAdmin`. */
  readonly clause: string;
  /** Shown with the skipped test. */
  readonly reason: string;
}

/** What a contract suite takes. */
export interface ContractOptions<Harness> extends TestRunner {
  /** The store's name, for the titles. */
  readonly name: string;
  /** Opens an empty store for one clause. */
  open(): Promise<Harness> | Harness;
  readonly skip?: readonly Skip[];
}

/**
 * Registers the contract suite for a store. A clause whose needs the harness does not meet fails, unless it is skipped by name.
 *
 * ```ts
 * import { describe, it } from 'vitest';
 * storeContract({ describe, it, name: 'my store', open: () => ({ store: myStore(), elapse: (ms) => clock.advance(ms) }) });
 * ```
 */
export function storeContract(options: ContractOptions<StoreHarness>): void {
  register(options, storeClauses, `${options.name} keeps the store contract`);
}

/** Registers the suite for contract 20 to 22. Run `storeContract` as well. */
export function transactionalStoreContract<Tx>(options: ContractOptions<TransactionalHarness<Tx>>): void {
  // Clauses pass on the transaction that the store gave them, and look at it no further.
  register(
    options as unknown as ContractOptions<TransactionalHarness>,
    transactionalClauses,
    `${options.name} keeps the transactional contract`,
  );
}

/** Registers the suite for contract 30 to 36, of a store that keeps the journal of steps. Run `storeContract` as well. */
export function journalContract(options: ContractOptions<JournalHarness>): void {
  register(options, journalClauses, `${options.name} keeps the journal contract`);
}

function register<H extends StoreHarness>(options: ContractOptions<H>, clauses: readonly Clause<H>[], title: string): void {
  const skips = options.skip ?? [];
  const unknown = skips.find(
    (skip) => ![...storeClauses, ...transactionalClauses, ...journalClauses].some((clause) => skipped(skip, clause.id)),
  );
  if (unknown) throw new Error(`Expected \`skip\` to name clauses of the contract, got ${JSON.stringify(unknown.clause)}`);
  options.describe(title, () => {
    for (const clause of clauses) {
      const name = `${clause.id}: ${clause.says}`;
      const skip = skips.find((each) => skipped(each, clause.id));
      if (skip) options.it.skip(`${name} (skipped: ${skip.reason})`, async () => {});
      else options.it(name, () => runClause(clause, options.open));
    }
  });
}

/** Runs one clause on a store of its own. Rejects if the store breaks it, or if the harness can't show it. */
export async function runClause<H extends StoreHarness>(clause: Clause<H>, open: () => Promise<H> | H): Promise<void> {
  const harness = await open();
  try {
    const { needs } = clause;
    const there = needs === undefined || (needs === 'admin' ? 'inspect' in harness.store : harness[needs] !== undefined);
    if (!there)
      throw new Error(`Clause ${clause.id} needs \`${String(needs)}\`: offer it in the harness, or skip the clause with a reason`);
    await clause.run(harness);
  } finally {
    await harness.close?.();
  }
}

function skipped({ clause }: Skip, id: string): boolean {
  return clause === id || clause === id.split(' ')[0] || clause === /^\d+/.exec(id)?.[0];
}
