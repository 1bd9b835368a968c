import type { ClaimRef, Entries, Entry, Journal } from '../../../src/effects/journal.ts';
import { ReceiverError } from '../../../src/errors.ts';
import type { Run } from './calls.ts';
import type { Argument } from './client.ts';
import { expectKey, type Layout, shardOf } from './layout.ts';
import type { Script, Scripts } from './scripts.ts';

const letters: Readonly<Record<Entry['state'], string>> = { started: 's', done: 'd', failed: 'f' };
const states: Readonly<Record<string, Entry['state']>> = { s: 'started', d: 'done', f: 'failed' };

/** The journal of steps: one script call for a batch, or one for each shard that the batch touches, all at once. */
export function journalVerbs(layout: Layout, scripts: Scripts, run: Run): Journal {
  async function byShard<Item extends ClaimRef, A>(
    items: readonly Item[],
    script: Script,
    doing: string,
    encode: (item: Item) => Argument[],
    decode: (reply: readonly unknown[], items: readonly Item[]) => readonly A[],
  ): Promise<A[]> {
    const groups = Map.groupBy(items.keys(), (i) => shardOf(expectKey(items[i]!.key), layout.shards.length));
    const answers = new Array<A>(items.length);
    await Promise.all(
      [...groups].map(async ([shard, places]) => {
        const some = places.map((i) => items[i]!);
        const reply = (await run(script, layout.shards[shard]!, some.flatMap(encode), doing)) as readonly unknown[];
        for (const [at, answer] of decode(reply, some).entries()) answers[places[at]!] = answer;
      }),
    );
    return answers;
  }

  return {
    writeEntries: (writes) =>
      byShard(
        writes,
        scripts.writeEntries,
        'journal entries were written',
        ({ key, token, name, state, text }) => [key, token, name, letters[state], text],
        (reply, some) => {
          const fenced = new Set(reply.map((place) => Number(place) - 1));
          return some.map((_, i) => (fenced.has(i) ? 'fenced' : 'ok'));
        },
      ),
    readEntries: (claims) =>
      byShard(
        claims,
        scripts.readEntries,
        'journal entries were read',
        ({ key, token }) => [key, token],
        (reply) => reply.map((each): Entries => (Array.isArray(each) ? entriesOf(each.map(String)) : 'fenced')),
      ),
  };
}

/** Names and texts, one after another. */
function entriesOf(flat: readonly string[]): Entry[] {
  return Array.from({ length: flat.length / 2 }, (_, i) => {
    const [name, value] = [flat[2 * i]!, flat[2 * i + 1]!];
    const state = states[value.charAt(0)];
    if (state) return { name, state, text: value.slice(1) };
    throw new ReceiverError('store', `Expected journal entry ${JSON.stringify(name)} as this library writes them, got ${value.charAt(0)}`);
  });
}
