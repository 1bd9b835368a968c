import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../adapters/stores/memory.ts';
import { type Clause, runClause, type StoreHarness, storeClauses, storeContract } from '../../src/testing/index.ts';
import { baseHarness, mutants } from './mutants.ts';

/** The clauses that a store breaks. */
async function broken(open: () => StoreHarness, clauses: readonly Clause[] = storeClauses): Promise<string[]> {
  const failures: string[] = [];
  for (const clause of clauses) await runClause(clause, open).catch(() => failures.push(clause.id));
  return failures;
}

describe('the store contract', () => {
  const caught = new Map<string, string[]>();

  it('finds nothing wrong with a good store', async () => {
    expect(await broken(() => baseHarness())).toEqual([]);
  });

  it.each(mutants.map((mutant) => [`${mutant.name} → ${mutant.breaks}`, mutant] as const))('catches a store that %s', async (_, mutant) => {
    const clauses = await broken(() => baseHarness(mutant.mutate));
    caught.set(mutant.name, clauses);
    expect(clauses).toContain(mutant.breaks);
  });

  it('catches a store that loses its records at a restart → 14a', async () => {
    const open = () => baseHarness(() => ({}), { reopen: async () => memoryStore({ now: () => 0 }) });
    const clauses = await broken(open);
    caught.set('loses its records at a restart', clauses);
    expect(clauses).toEqual(['14a']);
  });

  it('has no clause that no broken store breaks', () => {
    const all = new Set([...caught.values()].flat());
    expect(storeClauses.map(({ id }) => id).filter((id) => !all.has(id))).toEqual([]);
  });

  it('has clauses with names of their own, and says their sentences', () => {
    const titles: string[] = [];
    const runner = (it: (name: string) => void) => ({
      describe: (_: string, body: () => void) => body(),
      it: Object.assign(it, { skip: it }),
    });
    storeContract({
      ...runner((title) => titles.push(title)),
      name: 'a store',
      open: () => baseHarness(),
      skip: [{ clause: '14', reason: 'it is only for a while' }],
    });
    expect(new Set(titles).size).toBe(storeClauses.length);
    expect(titles.filter((title) => title.includes('skipped'))).toEqual([
      expect.stringMatching(/^14a: .* \(skipped: it is only for a while\)$/),
    ]);
  });

  it('runs on node:test as well', () => {
    const file = new URL('./with-node-test.ts', import.meta.url).pathname;
    const { status, stdout } = spawnSync(process.execPath, ['--test', '--test-reporter=tap', file], { encoding: 'utf8' });
    expect(stdout).toContain(`# pass ${storeClauses.length - 2}`);
    expect(stdout).toContain('# skipped 2');
    expect(status).toBe(0);
  });

  it('refuses to skip what is no clause', () => {
    const it_ = Object.assign(() => {}, { skip: () => {} });
    const register = () =>
      storeContract({ describe, it: it_, name: 'x', open: () => baseHarness(), skip: [{ clause: '99', reason: 'typo' }] });
    expect(register).toThrow('Expected `skip` to name clauses of the contract, got "99"');
  });

  it('fails a clause whose needs the harness does not meet, instead of skipping it', async () => {
    const { store, elapse } = baseHarness();
    const { inspect: _, ...withoutAdmin } = store;
    expect(
      await broken(
        () => ({ store: withoutAdmin, elapse }),
        storeClauses.filter(({ needs }) => needs),
      ),
    ).toEqual(storeClauses.filter(({ needs }) => needs).map(({ id }) => id));
  });
});
