import { memoryStore } from '../../adapters/stores/memory.ts';
import type { JournalHarness } from '../../src/testing/index.ts';
import { drivers, sqliteHarness } from '../adapters/stores/sqlite-harness.ts';

export function memoryJournal(): JournalHarness {
  let now = 0;
  return { store: memoryStore({ now: () => now }), elapse: (ms) => void (now += ms) };
}

export const sqliteJournal = (driver: string): JournalHarness => sqliteHarness(drivers[driver]!) as unknown as JournalHarness;
