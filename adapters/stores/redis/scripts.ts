import { createHash } from 'node:crypto';
import type { CompactLayout } from './layout.ts';
import { adminScripts } from './lua-admin.ts';
import { journalScripts } from './lua-journal.ts';
import { leasedScripts } from './lua-leased.ts';
import { recordFunctions } from './lua-record.ts';

/** A Lua script, and the name by which a server knows it. */
export interface Script {
  readonly text: string;
  readonly sha: string;
}

export type ScriptName = keyof typeof leasedScripts | keyof typeof adminScripts | keyof typeof journalScripts;
export type Scripts = Readonly<Record<ScriptName, Script>>;

const bodies: Readonly<Record<ScriptName, (compact: boolean) => string>> = { ...leasedScripts, ...adminScripts, ...journalScripts };

/**
 * The scripts for a layout. `change` is for tests that break them.
 *
 * The first line makes Redis refuse a script as a whole on a replica, without enough replicas, while loading, and, for claims,
 * when memory is full. What is under way may still be settled and extended then: it takes little, and it frees the claims.
 */
export function scriptsFor(
  compact: CompactLayout | undefined,
  change: (text: string, name: ScriptName) => string = (text) => text,
): Scripts {
  const script = (name: ScriptName): Script => {
    const first = name === 'claim' ? '#!lua' : '#!lua flags=allow-oom';
    const text = change(`${first}\n${recordFunctions(compact)}\n${bodies[name](compact !== undefined)}`, name);
    return { text, sha: createHash('sha1').update(text).digest('hex') };
  };
  return Object.fromEntries((Object.keys(bodies) as ScriptName[]).map((name) => [name, script(name)])) as Scripts;
}
