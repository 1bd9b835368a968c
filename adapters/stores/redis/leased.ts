import { ReceiverError } from '../../../src/errors.ts';
import type { Answer, Ask, DedupStore, End, Hold, Key, Settled } from '../../../src/store.ts';
import type { Run } from './calls.ts';
import type { Argument } from './client.ts';
import { bucketNamer, expectFingerprint, expectKey, expectToken, fieldsOf, type Layout, shardOf } from './layout.ts';
import type { Script, Scripts } from './scripts.ts';

/** The verbs of claims: one script call for a batch, or one for each shard that the batch touches, all at once. */
export function leasedVerbs(layout: Layout, scripts: Scripts, run: Run): Pick<DedupStore, 'claim' | 'settle' | 'extend'> {
  const bucketOf = layout.compact && bucketNamer(layout.compact);

  /** Calls a script for the items of each shard. What it answers is in the order of the items. */
  async function byShard<Item extends { readonly key: Key; readonly token: string }, A>(
    items: readonly Item[],
    script: Script,
    doing: string,
    encode: (items: readonly Item[], shard: string) => Argument[],
    decode: (reply: readonly unknown[], items: readonly Item[]) => A[],
    onFailure: (done: readonly (readonly [Item, A])[]) => Promise<unknown> = async () => {},
  ): Promise<readonly A[]> {
    for (const { key, token } of items) {
      expectKey(key);
      expectToken(token);
    }
    const call = async (shard: number, some: readonly Item[]): Promise<A[]> =>
      decode((await run(script, layout.shards[shard]!, encode(some, layout.shards[shard]!), doing)) as readonly unknown[], some);
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
    byShard(ends, scripts.settle, 'claims were settled', (some, shard) => encodeEnds(some, shard, bucketOf), decodeSettled);

  /** Where one node fails, the others' claims are given back: nobody will use them, and each would count as an attempt. */
  async function giveBack(done: readonly (readonly [Ask, Answer])[]): Promise<void> {
    const claimed = done.filter(([, answer]) => answer.state === 'claimed');
    await settle(claimed.map(([{ key, token, retainMs }]) => ({ key, token, retainMs, as: 'released', counted: false }))).catch(() => {});
  }

  return {
    claim: (asks) =>
      byShard(asks, scripts.claim, 'claims were made', (some, shard) => encodeAsks(some, shard, bucketOf), decodeAnswers, giveBack),
    settle,
    extend: (holds) => byShard(holds, scripts.extend, 'claims were extended', encodeHolds, decodeSettled),
  };
}

function answersOf<A>(call: PromiseSettledResult<A[]>): A[] {
  return call.status === 'fulfilled' ? call.value : [];
}

/** The runs of a list: neighbours that share their terms. */
function* runs<Item extends { readonly token: string }>(
  items: readonly Item[],
  alike: (a: Item, b: Item) => boolean,
): Generator<readonly Item[]> {
  let from = 0;
  for (let to = 1; to <= items.length; to++) {
    const [a, b] = [items[from]!, items[to]];
    if (b && a.token.length === b.token.length && alike(a, b)) continue;
    yield from === 0 && to === items.length ? items : items.slice(from, to);
    from = to;
  }
}

function encodeAsks(asks: readonly Ask[], shard: string, bucketOf: BucketOf | undefined): Argument[] {
  const args: Argument[] = [];
  for (const run of runs(asks, (a, b) => a.leaseMs === b.leaseMs && a.retainMs === b.retainMs)) {
    const [{ leaseMs, retainMs, token }] = run as [Ask];
    for (const { fingerprint } of run) expectFingerprint(fingerprint);
    args.push(wholeMs(leaseMs), wholeMs(retainMs), run.length, token.length);
    if (bucketOf) args.push(namesAndTokens(run, shard, bucketOf), fingerprintBytes(run), fieldsOf(run));
    else args.push(textOf(run, ({ key, fingerprint, token }) => shard + key + (fingerprint || noFingerprint) + token));
  }
  return args;
}

const noFingerprint = ' '.repeat(22);

/** 18 bytes of each fingerprint, of which the last 2 tell that it is one: see lua-record.ts. */
function fingerprintBytes(asks: readonly Ask[]): Buffer {
  return Buffer.from(
    textOf(asks, ({ fingerprint }) => (fingerprint === '' ? '_'.repeat(24) : `${fingerprint}AA`)),
    'base64url',
  );
}

function encodeEnds(ends: readonly End[], shard: string, bucketOf: BucketOf | undefined): Argument[] {
  const args: Argument[] = [];
  for (const run of runs(ends, (a, b) => a.retainMs === b.retainMs && kindOf(a) === kindOf(b))) {
    const [end] = run as [End];
    const kind = kindOf(end);
    args.push(kind, wholeMs(end.retainMs), run.length, end.token.length, namesAndTokens(run, shard, bucketOf));
    if (bucketOf) args.push(fieldsOf(run));
    for (const each of run) {
      if (each.as === 'completed' && each.result !== undefined) args.push(each.result);
      if (each.as === 'parked') args.push(each.reason, each.detail, each.label);
    }
  }
  return args;
}

function kindOf(end: End): string {
  if (end.as === 'completed') return end.result === undefined ? 'd' : 'D';
  if (end.as === 'released') return end.counted ? 'r' : 'u';
  return 'p';
}

function encodeHolds(holds: readonly Hold[], shard: string): Argument[] {
  const args: Argument[] = [];
  for (const run of runs(holds, (a, b) => a.leaseMs === b.leaseMs)) {
    const [{ leaseMs, token }] = run as [Hold];
    args.push(wholeMs(leaseMs), run.length, token.length, namesAndTokens(run, shard));
  }
  return args;
}

type BucketOf = (key: Key, shard: string) => string;

function namesAndTokens(items: readonly { readonly key: Key; readonly token: string }[], shard: string, bucketOf?: BucketOf): string {
  return textOf(items, ({ key, token }) => shard + key + token + (bucketOf ? bucketOf(key, shard) : ''));
}

/** The script cuts it into pieces by their lengths, so characters must be bytes. Tokens are what could be otherwise. */
function textOf<Item>(items: readonly Item[], of: (item: Item) => string): string {
  let text = '';
  for (const item of items) text += of(item);
  if (Buffer.byteLength(text) === text.length) return text;
  throw new ReceiverError('store', 'Expected tokens of ASCII characters');
}

/** Redis expires at whole milliseconds, and nothing at once. The most is 285 years. */
const wholeMs = (ms: number): number => Math.min(Math.max(1, Math.ceil(ms)), 9e12);

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
