import type { Key } from '../../../src/store.ts';
import { entryWords, type IdIndex, idIndex } from './ids.ts';
import { type Probation, probationWatch } from './probation.ts';
import type { LogRecord, Note } from './record.ts';

/** What is known of an id. Fingerprints are compared where both are not 0. */
export type Known =
  | { readonly state: 'completed'; readonly fingerprint: number; readonly ageMs: number }
  | { readonly state: 'parked' | 'released'; readonly fingerprint: number; readonly note: Note };

/** What the dedup log of a partition says, as far as it has been read. */
export interface Memory {
  readonly ids: IdIndex;
  readonly probation: Probation;
  /** Takes over a record that is in the log for good. Taking one over twice changes nothing. */
  apply(record: LogRecord, atMs: number): void;
  find(key: Key, entries: Int32Array, entry: number, nowMs: number): Known | undefined;
}

export function memory({ retentionMs }: { readonly retentionMs: number }): Memory {
  const ids = idIndex({ spanMs: retentionMs / 8 });
  const notes = new Map<Key, { readonly note: Note; readonly atMs: number }>();
  const probation = probationWatch();

  return {
    ids,
    get probation() {
      return probation.now;
    },

    apply(record, atMs) {
      const { entries } = record;
      probation.apply(record);
      const count = entries.length / entryWords;
      for (let entry = 0; entry < count; entry++) ids.add(entries, entry, atMs);
      for (const note of record.notes) {
        // At the end again, so that the oldest are always the first.
        notes.delete(note.key);
        notes.set(note.key, { note, atMs });
      }
    },

    find(key, entries, entry, nowMs) {
      ids.expire(nowMs - retentionMs);
      for (const [old, { atMs }] of notes) {
        if (atMs >= nowMs - retentionMs) break;
        notes.delete(old);
      }
      // Completed is final: a note from before it no longer counts.
      const found = ids.find(entries, entry);
      if (found) return { state: 'completed', fingerprint: found.fingerprint, ageMs: Math.max(0, nowMs - found.atMs) };
      const noted = notes.get(key)?.note;
      return noted && { state: noted.parked ? 'parked' : 'released', fingerprint: noted.fingerprint, note: noted };
    },
  };
}
