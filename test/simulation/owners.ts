import type { Answer, Ask, DedupStore, End, Hold, Key, Settled } from '../../src/store.ts';
import type { Kernel } from '../../src/testing/virtual/kernel.ts';
import type { Watch } from './watch.ts';

/** What the checker knows of a key, from the answers alone. */
export interface Owner {
  token: string;
  fence: number;
  attempts: number;
  state: 'claimed' | 'released' | 'completed' | 'parked';
  leaseUntil: number;
  fingerprint: string;
  result: string | undefined;
  reason: string;
  claimedAt: number;
  retainMs: number;
  expiresAt: number;
}

/**
 * Stands at the store's door and judges each answer against all answers before it: one owner at a time, fences that grow, finished that stays
 * finished, stale tokens that change nothing. It knows nothing of how the store works, so it also judges stores that are wrong.
 */
export class Owners {
  readonly known = new Map<Key, Owner>();
  /** Told of an extension that came when the lease had ended already, and nobody had taken it yet. */
  onLapse: (key: Key, owner: Readonly<Owner>) => void = () => {};
  /** What was known of a key before each change, so that a store that loses its last writes can still be judged. */
  readonly #before: { readonly at: number; readonly key: Key; readonly owner: Owner | undefined }[] = [];
  readonly #kernel: Kernel;
  readonly #watch: Watch;
  readonly #nameOf: (key: Key) => string;

  constructor(kernel: Kernel, watch: Watch, nameOf: (key: Key) => string) {
    this.#kernel = kernel;
    this.#watch = watch;
    this.#nameOf = nameOf;
  }

  guard(store: DedupStore): DedupStore {
    const judged =
      <Item, Given>(verb: (items: readonly Item[]) => Promise<readonly Given[]>, judge: (item: Item, given: Given) => void) =>
      async (items: readonly Item[]) => {
        const answers = await verb(items);
        items.forEach((item, i) => judge(item, answers[i]!));
        return answers;
      };
    return {
      claim: judged(store.claim, (ask: Ask, answer: Answer) => this.claimed(ask, answer)),
      settle: judged(store.settle, (end: End, settled: Settled) => this.settled(end, settled)),
      extend: judged(store.extend, (hold: Hold, settled: Settled) => this.extended(hold, settled)),
      purge: (limit) => store.purge(limit),
    };
  }

  /** The store has lost everything since `at`. Answers the keys that this concerns. */
  lose(at: number): Set<Key> {
    const keys = new Set<Key>();
    while (this.#before.length > 0 && this.#before.at(-1)!.at >= at) {
      const { key, owner } = this.#before.pop()!;
      keys.add(key);
      if (owner) this.known.set(key, owner);
      else this.known.delete(key);
    }
    this.#watch.tell('store', () => `has lost its last writes: ${[...keys].map(this.#nameOf).join(', ') || 'none'}`, true);
    return keys;
  }

  #changes(key: Key): void {
    const owner = this.known.get(key);
    this.#before.push({ at: this.#kernel.now, key, owner: owner && { ...owner } });
  }

  claimed(ask: Ask, answer: Answer): void {
    const owner = this.#find(ask.key);
    const last = this.known.get(ask.key);
    const name = this.#nameOf(ask.key);
    const wrong = (what: string) => this.#watch.violation('I3', `${name}: ${what}`);
    if (answer.state === 'claimed' && last && !owner) {
      this.#watch.count('forgotten');
      if (answer.fence <= last.fence) wrong(`fence ${answer.fence} after ${last.fence}, which was forgotten`);
    }
    this.#watch.tell('store', () => `claim ${name} by ${ask.token}: ${JSON.stringify(answer)}`);
    switch (answer.state) {
      case 'claimed':
        return this.#given(ask, answer, owner, name);
      case 'busy':
        if (owner?.state !== 'claimed' || owner.leaseUntil <= this.#kernel.now) wrong('busy, but nobody holds it');
        else if (owner.token === ask.token) wrong('busy, for the token that holds it');
        return;
      case 'completed':
        if (owner?.state !== 'completed') wrong('completed, but nobody has completed it');
        else if (owner.result !== answer.result) this.#watch.violation('I6', `${name}: result ${answer.result} instead of ${owner.result}`);
        return;
      case 'parked':
        if (owner?.state !== 'parked') wrong('parked, but nobody has parked it');
        return;
      case 'mismatch':
        if (!owner || owner.fingerprint === ask.fingerprint) this.#watch.violation('I7', `${name}: mismatch without another payload`);
        return;
      default:
        wrong(answer.state);
    }
  }

  #given(ask: Ask, answer: Answer & { state: 'claimed' }, owner: Owner | undefined, name: string): void {
    const { now } = this.#kernel;
    const wrong = (what: string) => this.#watch.violation('I3', `${name}: ${what}`);
    if (owner && owner.fingerprint !== ask.fingerprint) this.#watch.violation('I7', `${name}: claimed with another payload`);
    if (owner?.token === ask.token && owner.state === 'claimed') {
      if (owner.fence !== answer.fence || owner.attempts !== answer.attempt) wrong('asked again with the same token, answered otherwise');
      return this.#held(ask.key, owner, ask.leaseMs);
    }
    if (owner?.state === 'completed' || owner?.state === 'parked') wrong(`claimed, but it is ${owner.state}`);
    if (owner?.state === 'claimed' && owner.leaseUntil > now)
      wrong(`two owners: ${owner.token} holds it for ${owner.leaseUntil - now} ms more`);
    if (owner && answer.fence <= owner.fence) wrong(`fence ${answer.fence} after ${owner.fence}`);
    if (answer.attempt !== (owner?.attempts ?? 0) + 1) wrong(`attempt ${answer.attempt} after ${owner?.attempts ?? 0}`);
    this.#changes(ask.key);
    this.known.set(ask.key, {
      token: ask.token,
      fence: answer.fence,
      attempts: answer.attempt,
      state: 'claimed',
      leaseUntil: now + ask.leaseMs,
      fingerprint: ask.fingerprint,
      result: undefined,
      reason: '',
      claimedAt: now,
      retainMs: ask.retainMs,
      expiresAt: now + Math.max(ask.leaseMs, ask.retainMs),
    });
  }

  settled(end: End, settled: Settled): void {
    const owner = this.#find(end.key);
    const name = this.#nameOf(end.key);
    this.#watch.tell('store', () => `settle ${name} as ${end.as} by ${end.token}: ${settled}`);
    const current = owner?.token === end.token && (owner.state === 'claimed' || owner.state === end.as);
    if (settled === 'fenced') {
      if (current) this.#watch.violation('I3', `${name}: the current token was fenced`);
      return;
    }
    if (!current) return this.#watch.violation('I3', `${name}: settled as ${end.as} by a stale token, while it is ${owner?.state}`);
    if (owner.state !== 'claimed') return;
    this.#changes(end.key);
    owner.state = end.as;
    owner.expiresAt = this.#kernel.now + end.retainMs;
    if (end.as === 'completed') owner.result = end.result;
    if (end.as === 'released' && !end.counted) owner.attempts--;
    if (end.as === 'parked') owner.reason = end.reason;
  }

  extended(hold: Hold, settled: Settled): void {
    const owner = this.#find(hold.key);
    const name = this.#nameOf(hold.key);
    this.#watch.tell('store', () => `extend ${name} by ${hold.token}: ${settled}`);
    const current = owner?.token === hold.token && owner.state === 'claimed';
    if (settled === 'fenced') {
      if (current) this.#watch.violation('I3', `${name}: the current token was refused its extension`);
    } else if (!current) this.#watch.violation('I3', `${name}: extended by a stale token`);
    else {
      if (owner.leaseUntil <= this.#kernel.now) this.onLapse(hold.key, owner);
      this.#held(hold.key, owner, hold.leaseMs);
    }
  }

  /** An expired record is absent. */
  #find(key: Key): Owner | undefined {
    const owner = this.known.get(key);
    return owner && owner.expiresAt > this.#kernel.now ? owner : undefined;
  }

  #held(key: Key, owner: Owner, leaseMs: number): void {
    this.#changes(key);
    owner.leaseUntil = this.#kernel.now + leaseMs;
    owner.expiresAt = this.#kernel.now + Math.max(leaseMs, owner.retainMs);
  }
}
