import { ReceiverError } from '../../../src/errors.ts';
import type { Answer, Ask, DedupStore, End, Hold, Key, Settled } from '../../../src/store.ts';
import type { Run } from './calls.ts';
import type { Argument } from './client.ts';
import { expectFingerprint, expectKey, type Layout, shardOf } from './layout.ts';
import type { Script, Scripts } from './scripts.ts';

/** The verbs of claims: one script call for a batch, or one for each shard that the batch touches, all at once. */
export function leasedVerbs(layout: Layout, scripts: Scripts, run: Run): Pick<DedupStore, 'claim' | 'settle' | 'extend'> {
  const compact = layout.compact !== undefined;

  /** Calls a script for the items of each shard. What it answers is in the order of the items. */
  async function byShard<Item extends { readonly key: Key }, A>(
    items: readonly Item[],
    script: Script,
    doing: string,
    encode: (items: readonly Item[]) => Argument[],
    decode: (reply: readonly unknown[], items: readonly Item[]) => A[],
    onFailure: (done: readonly (readonly [Item, A])[]) => Promise<unknown> = async () => {},
  ): Promise<readonly A[]> {
    for (const { key } of items) expectKey(key);
    const call = async (shard: number, some: readonly Item[]): Promise<A[]> =>
      decode((await run(script, layout.shards[shard]!, encode(some), doing)) as readonly unknown[], some);
    if (items.length === 0) return [];
    if (layout.shards.length === 1) return call(0, items);

    const groups = new Map<number, Item[]>();
    for (const item of items) {
      const shard = shardOf(item.key, layout.shards.length);
      const group = groups.get(shard);
      if (group) group.push(item);
      else groups.set(shard, [item]);
    }
    const calls = await Promise.allSettled([...groups].map(([shard, some]) => call(shard, some)));
    const failed = calls.find((each) => each.status === 'rejected');
    if (failed) {
      await onFailure([...groups.values()].flatMap((some, g) => answersOf(calls[g]!).map((answer, i) => [some[i]!, answer] as const)));
      throw failed.reason;
    }
    const answers = new Map([...groups.keys()].map((shard, g) => [shard, answersOf(calls[g]!).values()]));
    return items.map(({ key }) => answers.get(shardOf(key, layout.shards.length))!.next().value!);
  }

  const settle = (ends: readonly End[]): Promise<readonly Settled[]> =>
    byShard(ends, scripts.settle, 'claims were settled', (some) => encodeEnds(some, compact), decodeSettled);

  /** Where one node fails, the others' claims are given back: nobody will use them, and each would count as an attempt. */
  async function giveBack(done: readonly (readonly [Ask, Answer])[]): Promise<void> {
    const claimed = done.filter(([, answer]) => answer.state === 'claimed');
    await settle(claimed.map(([{ key, token, retainMs }]) => ({ key, token, retainMs, as: 'released', counted: false }))).catch(() => {});
  }

  return {
    claim: (asks) => byShard(asks, scripts.claim, 'claims were made', (some) => encodeAsks(some, compact), decodeAnswers, giveBack),
    settle,
    extend: (holds) => byShard(holds, scripts.extend, 'claims were extended', encodeHolds, decodeSettled),
  };
}

function answersOf<A>(call: PromiseSettledResult<A[]>): A[] {
  return call.status === 'fulfilled' ? call.value : [];
}

/** The runs of a list: neighbours that share their terms, which are numbers and words. */
function* runs<Item>(
  items: readonly Item[],
  termsOf: (item: Item) => string,
): Generator<{ terms: readonly string[]; run: readonly Item[] }> {
  let from = 0;
  let terms = items.length > 0 ? termsOf(items[0]!) : '';
  for (let to = 1; to <= items.length; to++) {
    const next = to < items.length ? termsOf(items[to]!) : '';
    if (next === terms) continue;
    yield { terms: terms.split(' '), run: items.slice(from, to) };
    from = to;
    terms = next;
  }
}

function encodeAsks(asks: readonly Ask[], compact: boolean): Argument[] {
  const args: Argument[] = [];
  for (const { terms, run } of runs(asks, (ask) => `${wholeMs(ask.leaseMs)} ${wholeMs(ask.retainMs)} ${lengthOf(ask.token)}`)) {
    const fingerprints = run.map(({ fingerprint }) => expectFingerprint(fingerprint));
    args.push(terms[0]!, terms[1]!, run.length, terms[2]!, keysAndTokens(run));
    if (compact)
      args.push(Buffer.from(fingerprints.map((each) => (each === '' ? '_'.repeat(24) : `${each}AA`)).join(''), 'base64url'), bytesOf(run));
    else args.push(fingerprints.map((each) => each || noFingerprint).join(''));
  }
  return args;
}

const noFingerprint = ' '.repeat(22);

function encodeEnds(ends: readonly End[], compact: boolean): Argument[] {
  const args: Argument[] = [];
  for (const { terms, run } of runs(ends, (end) => `${kindOf(end)} ${wholeMs(end.retainMs)} ${lengthOf(end.token)}`)) {
    args.push(terms[0]!, terms[1]!, run.length, terms[2]!, keysAndTokens(run));
    if (compact) args.push(terms[0] === 'd' ? bytesOf(run) : '');
    for (const end of run) {
      if (end.as === 'completed' && end.result !== undefined) args.push(end.result);
      if (end.as === 'parked') args.push(end.reason, end.detail, end.label);
    }
  }
  return args;
}

function kindOf(end: End): string {
  if (end.as === 'completed') return end.result === undefined ? 'd' : 'D';
  if (end.as === 'released') return end.counted ? 'r' : 'u';
  return 'p';
}

function encodeHolds(holds: readonly Hold[]): Argument[] {
  const args: Argument[] = [];
  for (const { terms, run } of runs(holds, (hold) => `${wholeMs(hold.leaseMs)} ${lengthOf(hold.token)}`)) {
    args.push(terms[0]!, run.length, terms[1]!, keysAndTokens(run));
  }
  return args;
}

function keysAndTokens(items: readonly { readonly key: Key; readonly token: string }[]): string {
  let text = '';
  for (const { key, token } of items) text += key + token;
  return text;
}

/** 24 bytes of each key. */
export function bytesOf(items: readonly { readonly key: Key }[]): Buffer {
  return Buffer.from(items.map(({ key }) => key).join(''), 'base64url');
}

/** Redis expires at whole milliseconds, and nothing at once. The most is 285 years. */
const wholeMs = (ms: number): number => Math.min(Math.max(1, Math.ceil(ms)), 9e12);

function lengthOf(token: string): number {
  const length = Buffer.byteLength(token);
  if (length >= 1 && length <= 255) return length;
  throw new ReceiverError('store', `Expected a token of 1 to 255 bytes, got ${length}`);
}

/** What a claim that is not mentioned was given: see lua-leased.ts. */
function decodeAnswers(reply: readonly unknown[], asks: readonly Ask[]): Answer[] {
  const fence = Number(reply[0]);
  if (!Number.isSafeInteger(fence) || fence < 1) throw new ReceiverError('store', `Expected Redis to answer a fence, got ${reply[0]}`);
  const given: Answer = { state: 'claimed', fence, attempt: 1, orphaned: false };
  const answers = asks.map((): Answer => given);
  for (let at = 1; at < reply.length; ) {
    const index = Number(reply[at]) - 1;
    const number = (offset: number) => Number(reply[at + offset]);
    const text = (offset: number) => String(reply[at + offset]);
    switch (reply[at + 1]) {
      case 'c':
        answers[index] = { state: 'claimed', fence: number(2), attempt: number(3), orphaned: number(4) === 1 };
        at += 5;
        break;
      case 'd':
        answers[index] = { state: 'completed', result: undefined, ageMs: Math.max(0, number(2)) };
        at += 3;
        break;
      case 'D':
        answers[index] = { state: 'completed', result: text(3), ageMs: Math.max(0, number(2)) };
        at += 4;
        break;
      case 'b':
        answers[index] = { state: 'busy', remainingMs: number(2) };
        at += 3;
        break;
      case 'p':
        answers[index] = { state: 'parked', reason: text(3), detail: text(4), attempts: number(2) };
        at += 5;
        break;
      case 'm':
        answers[index] = { state: 'mismatch' };
        at += 2;
        break;
      case 'x':
        answers[index] = { state: 'corrupt', detail: text(2) };
        at += 3;
        break;
      default:
        throw new ReceiverError('store', `Expected Redis to answer a state, got ${reply[at + 1]}`);
    }
  }
  return answers;
}

function decodeSettled(reply: readonly unknown[], items: readonly unknown[]): Settled[] {
  const settled = items.map((): Settled => 'ok');
  for (const position of reply) settled[Number(position) - 1] = 'fenced';
  return settled;
}
