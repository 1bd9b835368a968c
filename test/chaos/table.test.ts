import { describe, expect, it } from 'vitest';
import { matrix, nameOf, timesOf } from './cell.ts';
import { readResults } from './table.ts';

describe('the results of chaos', () => {
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
