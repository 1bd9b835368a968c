import { describe, expect, it } from 'vitest';
import { read } from '../support/package.ts';
import { matrix, nameOf, timesOf } from './cell.ts';
import { blockOf, pageOf, readResults, withBlock } from './table.ts';

describe('the results of chaos', () => {
  it('are what CHAOS.md and the README show', () => {
    const results = readResults();
    expect(read('test/chaos/CHAOS.md')).toBe(pageOf(results));
    expect(read('README.md')).toBe(withBlock(read('README.md'), blockOf(results)));
  });

  it('are of cells that exist, and none breaks a promise', () => {
    const names = matrix.map(nameOf);
    for (const { cell, lost, wrong, disordered } of readResults()) {
      expect(names).toContain(nameOf(cell));
      if (cell.mode === 'naive') expect(Math.min(lost, wrong)).toBeGreaterThan(0);
      else expect({ lost, wrong, disordered }, nameOf(cell)).toEqual({ lost: 0, wrong: 0, disordered: 0 });
    }
  });
});

it('a stop is longer than the lease, and half of them longer than what the broker waits for', () => {
  for (const leaseMs of [600, 1_000, 3_000]) {
    const { visibilityMs, sessionMs, storeTimeoutMs, stopMs } = timesOf(leaseMs);
    expect(stopMs.atLeast).toBeGreaterThan(leaseMs);
    expect((stopMs.atLeast + stopMs.atMost) / 2).toBeGreaterThanOrEqual(Math.max(visibilityMs, sessionMs));
    expect(visibilityMs).toBeGreaterThan(leaseMs);
    expect(sessionMs).toBeGreaterThanOrEqual(leaseMs);
    expect(storeTimeoutMs).toBeLessThan(leaseMs);
  }
});
