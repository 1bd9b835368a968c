import { ReceiverError } from '../../../src/errors.ts';
import type { Ask, Key } from '../../../src/store.ts';
import { entryWords } from './ids.ts';
import type { Probation } from './probation.ts';

/**
 * A record of the dedup log. Its key names group and topic; its value is
 *
 *     version (1 byte)  kind (1)  probation: limit (2), left (2)  entries (4)  id (16)  |  entries, 20 bytes each  |  notes, as JSON
 *
 * in little-endian order. An entry is a completed id: the first 128 bits of its key, and 32 of its fingerprint.
 */
export interface LogRecord {
  readonly kind: Kind;
  /** Of the unit that wrote it, new for each: whether it is in the log tells whether the unit has committed. */
  readonly id: Buffer;
  /** Of the owner's next unit. */
  readonly probation: Probation;
  /** Completed ids, `entryWords` each. */
  readonly entries: Int32Array;
  readonly notes: readonly Note[];
}

/**
 * `mark`: up to here the log was read, by whoever is taking the partition over or settles a commit in doubt. `assigned`: it has a new owner.
 * `returned`: the owner has given it back.
 */
export type Kind = 'unit' | 'assigned' | 'mark' | 'returned';

/** What is remembered of an id that is not completed. */
export interface Note {
  readonly key: Key;
  readonly fingerprint: number;
  readonly attempts: number;
  readonly parked?: { readonly reason: string; readonly detail: string } | undefined;
}

const kinds: readonly Kind[] = ['unit', 'assigned', 'mark', 'returned'];
const version = 1;
const headerBytes = 26;
const entryBytes = entryWords * 4;

export function encodeRecord({ kind, id, probation, entries, notes }: LogRecord): Buffer {
  const tail = notes.length > 0 ? Buffer.from(JSON.stringify(notes)) : Buffer.alloc(0);
  const value = Buffer.alloc(headerBytes + entries.byteLength + tail.length);
  value.writeUInt8(version, 0);
  value.writeUInt8(kinds.indexOf(kind), 1);
  value.writeUInt16LE(probation.limit, 2);
  value.writeUInt16LE(probation.left, 4);
  value.writeUInt32LE(entries.length / entryWords, 6);
  id.copy(value, 10);
  Buffer.from(entries.buffer, entries.byteOffset, entries.byteLength).copy(value, headerBytes);
  tail.copy(value, headerBytes + entries.byteLength);
  return value;
}

/** @throws ReceiverError `store`: nobody can tell which ids a record held that can't be read, so nothing is answered */
export function decodeRecord(value: Buffer | null, where: string): LogRecord {
  const refuse = (got: string): never => {
    throw new ReceiverError('store', `Expected ${where} to be a record of version ${version}, got ${got}`);
  };
  if (!value || value.length < headerBytes) return refuse(`${value?.length ?? 0} bytes`);
  if (value[0] !== version) return refuse(`version ${value[0]}: another version of idempotent-receiver wrote it`);
  const kind = kinds[value[1]!];
  const count = value.readUInt32LE(6);
  const notesAt = headerBytes + count * entryBytes;
  if (!kind || notesAt > value.length) return refuse(`kind ${value[1]} with ${count} entries in ${value.length} bytes`);
  // Copied once: what kafkajs gives is not aligned.
  const entries = new Int32Array(count * entryWords);
  value.copy(Buffer.from(entries.buffer), 0, headerBytes, notesAt);
  let notes: Note[] = [];
  try {
    if (notesAt < value.length) notes = JSON.parse(value.toString('utf8', notesAt)) as Note[];
  } catch {
    return refuse('notes that are no JSON');
  }
  const probation = { limit: value.readUInt16LE(2), left: value.readUInt16LE(4) };
  return { kind, id: value.subarray(10, headerBytes), probation, entries, notes };
}

/** The entries of keys, in the order asked. Decoded in one go, which is ten times cheaper than one by one. */
export function entriesOf(asks: readonly Pick<Ask, 'key' | 'fingerprint'>[]): Int32Array {
  let text = '';
  let fits = true;
  for (const { key, fingerprint } of asks) {
    fits &&= key.length === 32 && (fingerprint === '' || fingerprint.length === noFingerprint.length);
    text += `${key}${fingerprint === '' ? noFingerprint : fingerprint}AAAAAAAAAA`;
  }
  const bytes = Buffer.from(text, 'base64url');
  if (!fits || bytes.length !== asks.length * 48)
    throw new ReceiverError('invalid-key', 'Expected keys of 32 characters of base64url, and fingerprints of 22 or none');
  const entries = new Int32Array(asks.length * entryWords);
  for (let i = 0; i < asks.length; i++) {
    for (let word = 0; word < 4; word++) entries[i * entryWords + word] = bytes.readInt32LE(i * 48 + word * 4);
    // 0 stands for none.
    if (asks[i]!.fingerprint !== '') entries[i * entryWords + 4] = bytes.readInt32LE(i * 48 + 24) || 1;
  }
  return entries;
}

const noFingerprint = 'A'.repeat(22);
