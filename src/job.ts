import { describeError, ReceiverError } from './errors.ts';
import type { Lease } from './lease.ts';
import type { Delivery, Message, Source, Verdict } from './message.ts';
import type { Answer, Ask, Fingerprint, Key } from './store.ts';

/** One delivery on its way through the receiver. Key and fingerprint are frozen here; nothing is computed again from the message later. */
export interface Job {
  readonly delivery: Delivery;
  readonly message: Message;
  readonly source: Source;
  /** As the key strategy gave it, for people only. */
  readonly id: string | readonly string[];
  readonly payload: unknown;
  /** Empty if `preset` says that there is none. */
  readonly key: Key;
  readonly fingerprint: Fingerprint;
  /** New for each claim, so that a late write for an earlier one can't touch it. */
  token: string;
  /** Jobs with the same lane run one after another. */
  readonly lane: string;
  /** An earlier job of the same batch and lane with the same key: this one takes its verdict. */
  readonly follows: Job | undefined;
  /** The verdict is known before the store is asked: the message is poison. */
  readonly preset: Verdict | undefined;
  /** The answer is known before the store is asked, or has come. */
  answer: Answer | undefined;
  /** Kept until the verdict; absent where that is known from the start. */
  lease: Lease | undefined;
  /** Its last owner's lease had ended, as the first claim told; the claim that follows a give-back doesn't. */
  orphaned: boolean;
  /** What its verdict is if its unit of work commits. */
  foreseen: Verdict | undefined;
  verdict: Verdict | undefined;
}

/** What a message is known by. */
export interface Identity {
  readonly id: string | readonly string[];
  readonly payload: unknown;
  readonly key: Key;
  readonly fingerprint: Fingerprint;
}

/** Makes the jobs of a batch, in order: recognises messages, copies within the batch, and messages that can't be handled at all. */
export function jobsOf(
  deliveries: readonly Delivery[],
  source: Source,
  options: { identify(message: Message): Identity; token(): string },
): Job[] {
  /** Jobs of this batch that copies can follow, by key. */
  const leaders = new Map<Key, Job[]>();
  return deliveries.map((delivery, index) => {
    const { message } = delivery;
    let identity: Identity = { id: '', payload: undefined, key: '', fingerprint: '' };
    let preset: Verdict | undefined;
    try {
      identity = options.identify(message);
    } catch (error) {
      preset = poison(error);
    }
    // Without an order of their own only copies of one message have to wait for each other.
    // No key has a colon in it, and none is as short as an index.
    const lane = delivery.orderingKey !== undefined ? `order:${delivery.orderingKey}` : identity.key || String(index);
    const sameKey = leaders.get(identity.key);
    const job: Job = {
      id: identity.id,
      payload: identity.payload,
      key: identity.key,
      fingerprint: identity.fingerprint,
      delivery,
      message,
      source,
      lane,
      token: options.token(),
      follows: preset ? undefined : sameKey?.find((each) => each.lane === lane && each.fingerprint === identity.fingerprint),
      preset,
      answer: undefined,
      lease: undefined,
      orphaned: false,
      foreseen: undefined,
      verdict: undefined,
    };
    if (preset || job.follows) return job;
    if (sameKey) sameKey.push(job);
    else leaders.set(job.key, [job]);
    return job;
  });
}

/** Whether the store has to be asked: the verdict does not follow from anything that is known. */
export function isAsking(job: Job): boolean {
  return !job.preset && !job.follows && !job.answer;
}

export function lanesOf(jobs: readonly Job[]): Job[][] {
  return [...Map.groupBy(jobs, ({ lane }) => lane).values()];
}

export function askOf(job: Job, settings: { readonly leaseMs: number; readonly retentionMs: number }): Ask {
  return { key: job.key, fingerprint: job.fingerprint, token: job.token, leaseMs: settings.leaseMs, retainMs: settings.retentionMs };
}

function poison(error: unknown): Verdict {
  const undecodable = !(error instanceof ReceiverError) || error.code !== 'invalid-key';
  return { action: 'dead-letter', reason: undecodable ? 'undecodable' : 'invalid-key', detail: describeError(error), attempts: 0, error };
}
