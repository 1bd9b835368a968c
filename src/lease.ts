import type { Clock } from './clock.ts';
import { ReceiverError } from './errors.ts';
import type { Delivery, Source } from './message.ts';
import type { Hold, Settled } from './store.ts';

/**
 * Two holds on one message that stand and fall together: the broker's hold on the delivery, from its arrival to its verdict, and in between
 * the claim in the store.
 */
export interface Lease {
  /** Aborted when either hold is lost, when the handler's time is up, or when the receiver stops. Made only if somebody asks for it. */
  readonly signal: AbortSignal;
  /** Why the signal is aborted; undefined if it is not. */
  readonly aborted: ReceiverError | undefined;
  /** True if it is too late to start the handler: a hold is lost, or may have ended without our notice. */
  readonly over: boolean;
  /** What is left of the claim at least, on this process's clock, in milliseconds; 0 without one. */
  readonly remainingMs: number;
  /** Keeps a claim alive too. `claimedAt`: when it was asked for, on the monotonic clock: the store can't have given it earlier. */
  claim(claim: Claim, claimedAt: number): void;
  /** The claim has been settled, or is to end by itself. */
  unclaim(): void;
  abort(reason: ReceiverError): void;
  /** Calls `task` when the signal is aborted, or now if it is. Most are never aborted, and a signal for each would cost as much as all the rest. */
  whenAborted(task: () => void): void;
  /** Aborts the signal when a handler that began at `startedAt` has run for `ms`. */
  limit(startedAt: number, ms: number): void;
  /** The handler has ended in time. */
  unlimit(): void;
  /** Ends the keeping alive. What holds there are end by themselves, or have been ended by a settle and a verdict. */
  end(): void;
}

interface Claim {
  readonly key: string;
  readonly token: string;
}

/** Keeps all leases of a receiver alive with one timer, one store call and one broker call per source and beat. */
export interface Leases {
  start(delivery: Delivery, source: Source, now: number): Lease;
  /** How many claims are kept alive. */
  claims(): number;
  abortAll(reason: ReceiverError): void;
  /** Stops keeping anything alive. */
  endAll(): void;
}

export function leases(options: {
  readonly clock: Clock;
  readonly leaseMs: number;
  extend(holds: readonly Hold[]): Promise<readonly Settled[]>;
}): Leases {
  const { clock, leaseMs } = options;
  const beatMs = leaseMs / 3;
  const kept = new Set<Kept>();
  /** Those that have a listener. */
  const watched = new WeakSet<AbortSignal>();
  /** Since when a call to the store or to a source has been under way. */
  const asking = new WeakMap<object, number>();
  let nextBeatAt = Number.POSITIVE_INFINITY;
  let timer: { readonly at: number; readonly cancel: () => void } | undefined;

  function wakeAt(at: number): void {
    if (timer && timer.at <= at) return;
    timer?.cancel();
    timer = { at, cancel: clock.after(Math.max(0, at - clock.now()), wake) };
  }

  /** At every beat, and at every deadline in between: whoever takes over after it must not find the handler still trusting its claim. */
  function wake(): void {
    timer = undefined;
    for (const lease of kept) {
      if (clock.now() >= lease.until) lease.lose('The lease ended before it could be extended');
      if (clock.now() >= lease.heldUntil) lease.lose("The broker's hold on the delivery ended before it could be extended");
      if (clock.now() >= lease.limitedUntil) lease.timeIsUp();
    }
    if (clock.now() >= nextBeatAt) {
      nextBeatAt = clock.now() + beatMs;
      beat();
    }
    if (kept.size === 0) return;
    let next = nextBeatAt;
    for (const lease of kept) next = Math.min(next, lease.lost ? next : lease.deadline, lease.limitedUntil);
    wakeAt(next);
  }

  function beat(): void {
    const alive = [...kept].filter((lease) => !lease.lost);
    const claimed = alive.filter((lease) => lease.claimed);
    if (claimed.length > 0) void ask(kept, () => extendClaims(claimed));
    for (const [source, held] of Map.groupBy(alive, (lease) => lease.source))
      if (source.hold) void ask(source, () => holdDeliveries(source, held));
  }

  /**
   * One call at a time to each, and none waits for another: a broker that hangs must not cost the claims. A call that has been under way for
   * a whole lease is taken for lost.
   */
  async function ask(whom: object, call: () => Promise<void>): Promise<void> {
    const askedAt = clock.now();
    const since = asking.get(whom);
    if (since !== undefined && askedAt - since < leaseMs) return;
    asking.set(whom, askedAt);
    try {
      await call();
    } catch {
      // Unknown: the old deadline stands, and the next beat tries again.
    }
    if (asking.get(whom) === askedAt) asking.delete(whom);
  }

  async function extendClaims(claimed: Kept[]): Promise<void> {
    const askedAt = clock.now();
    const claims = claimed.map((lease) => lease.claimed!);
    const answers = await options.extend(claims.map(({ key, token }) => ({ key, token, leaseMs })));
    claimed.forEach((lease, i) => {
      // Settled meanwhile, or claimed anew.
      if (lease.claimed !== claims[i]) return;
      if (answers[i] === 'ok') lease.until = Math.max(lease.until, askedAt + leaseMs);
      else if (answers[i] === 'fenced') lease.lose('Another worker has claimed the message');
    });
  }

  async function holdDeliveries(source: Source, alive: Kept[]): Promise<void> {
    const askedAt = clock.now();
    const deliveries = alive.map(({ delivery }) => delivery);
    const held = await source.hold!(deliveries, leaseMs);
    alive.forEach((lease, i) => {
      if (held[i] === true) lease.heldUntil = Math.max(lease.heldUntil, askedAt + leaseMs);
      else if (held[i] === false) lease.lose(takenBack);
    });
  }

  /** A delivery may have waited for long, so that little of the broker's hold is left: its first beat comes sooner. */
  function keep(lease: Kept, now: number): void {
    const leftMs = Math.max(0, lease.deadline - now);
    nextBeatAt = Math.min(nextBeatAt, now + Math.min(beatMs, leftMs / 3));
    wakeAt(nextBeatAt);
  }

  function watch(lost: AbortSignal): void {
    const revoke = () => {
      for (const lease of kept) if (lease.source.lost === lost) lease.revoke();
    };
    if (lost.aborted) return revoke();
    if (watched.has(lost)) return;
    watched.add(lost);
    lost.addEventListener('abort', revoke, { once: true });
  }

  function forget(lease: Kept): void {
    kept.delete(lease);
    if (kept.size > 0) return;
    timer?.cancel();
    timer = undefined;
    nextBeatAt = Number.POSITIVE_INFINITY;
  }

  /** Wakes no later than `at`, if it is to wake at all. */
  function wakeBy(at: number): void {
    if (at < (timer?.at ?? 0)) wakeAt(at);
  }

  const keeper: Keeper = { clock, leaseMs, keep, forget, wakeBy };
  return {
    claims() {
      let claims = 0;
      for (const { claimed } of kept) if (claimed) claims++;
      return claims;
    },
    start(delivery, source, now) {
      const lease = new Kept(keeper, delivery, source);
      kept.add(lease);
      keep(lease, now);
      if (source.lost) watch(source.lost);
      return lease;
    },
    abortAll(reason) {
      for (const lease of kept) lease.abort(reason);
    },
    endAll() {
      for (const lease of [...kept]) lease.end();
    },
  };
}

const takenBack = 'The broker has taken the delivery back';

/** The heartbeat, as each of its leases knows it. */
interface Keeper {
  readonly clock: Clock;
  readonly leaseMs: number;
  keep(lease: Kept, now: number): void;
  forget(lease: Kept): void;
  wakeBy(at: number): void;
}

class Kept implements Lease {
  readonly #keeper: Keeper;
  readonly delivery: Delivery;
  readonly source: Source;
  claimed: Claim | undefined;
  until = Number.POSITIVE_INFINITY;
  heldUntil: number;
  limitedUntil = Number.POSITIVE_INFINITY;
  lost = false;
  aborted: ReceiverError | undefined;
  #limitMs = 0;
  #controller: AbortController | undefined;
  #onAbort: (() => void) | undefined;

  constructor(keeper: Keeper, delivery: Delivery, source: Source) {
    this.#keeper = keeper;
    this.delivery = delivery;
    this.source = source;
    this.heldUntil = delivery.heldUntil ?? Number.POSITIVE_INFINITY;
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.aborted) this.#controller.abort(this.aborted);
    }
    return this.#controller.signal;
  }

  get deadline(): number {
    return Math.min(this.until, this.heldUntil);
  }

  get over(): boolean {
    return this.lost || this.#keeper.clock.now() >= this.deadline;
  }

  get remainingMs(): number {
    return this.claimed ? Math.max(0, this.until - this.#keeper.clock.now()) : 0;
  }

  claim(claim: Claim, claimedAt: number): void {
    this.claimed = claim;
    this.until = claimedAt + this.#keeper.leaseMs;
    this.#keeper.keep(this, claimedAt);
  }

  unclaim(): void {
    this.claimed = undefined;
    this.until = Number.POSITIVE_INFINITY;
  }

  lose(why: string): void {
    if (this.lost) return;
    this.lost = true;
    // In a transaction there is no claim to lose: what commits counts, whoever the broker thinks holds the delivery.
    if (this.claimed) this.abort(new ReceiverError('claim-lost', why));
  }

  /** Unlike a delivery that is taken back alone, in a transaction too: that does not commit any more. */
  revoke(): void {
    this.lost = true;
    this.abort(new ReceiverError('claim-lost', takenBack));
  }

  abort(reason: ReceiverError): void {
    if (this.aborted) return;
    this.aborted = reason;
    this.#controller?.abort(reason);
    this.#onAbort?.();
  }

  whenAborted(task: () => void): void {
    this.#onAbort = task;
    if (this.aborted) task();
  }

  limit(startedAt: number, ms: number): void {
    this.#limitMs = ms;
    this.limitedUntil = startedAt + ms;
    this.#keeper.wakeBy(this.limitedUntil);
  }

  unlimit(): void {
    this.limitedUntil = Number.POSITIVE_INFINITY;
  }

  timeIsUp(): void {
    this.limitedUntil = Number.POSITIVE_INFINITY;
    this.abort(new ReceiverError('handler-timeout', `The handler has been running for ${this.#limitMs} ms`));
  }

  end(): void {
    this.#keeper.forget(this);
  }
}
