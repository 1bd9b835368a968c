import { memoryStore } from '../../adapters/stores/memory.ts';
import type { AnyHandler } from '../../src/handler.ts';
import { attribute, createReceiver, type Delivery, type EventHooks, type ReceiverEvents, type Verdict } from '../../src/index.ts';
import type { DedupStore } from '../../src/store.ts';
import { type VirtualWorld, virtualWorld } from '../../src/testing/virtual-world.ts';

/** A delivery of the message `id`, with payload `{ id }` unless another is given. */
export function delivery(id: string, more: Partial<Delivery> & { payload?: unknown; messageId?: string } = {}): Delivery {
  const { payload = { id }, messageId = id, ...rest } = more;
  return { message: { id: messageId, body: JSON.stringify(payload), headers: { id } }, ...rest };
}

/** Everything a receiver has told, in order. */
export type Told = { readonly [Name in keyof ReceiverEvents]: [Name, ReceiverEvents[Name]] }[keyof ReceiverEvents][];

/** A receiver in a virtual world on a store whose calls can be made to fail or hang. */
export function stand(handler: AnyHandler, options: Record<string, unknown> = {}, shared?: { world: VirtualWorld; store: DedupStore }) {
  const world = shared?.world ?? virtualWorld();
  const real = shared?.store ?? memoryStore({ now: world.clock.now });
  const told: Told = [];
  const faults = faulty(real);
  const receiver = createReceiver(
    { scope: 'test', key: attribute('id'), store: faults.store, world, on: recording(told), ...(options as object) } as {
      scope: string;
      key: ReturnType<typeof attribute>;
      store: DedupStore;
    },
    handler,
  );
  return { world, store: real, faults, receiver, told, names: () => told.map(([name]) => name) };
}

/** Every event that there is. */
export const eventNames = [
  'received',
  'claimed',
  'duplicate',
  'busy',
  'completed',
  'released',
  'parked',
  'fenced',
  'mismatch',
  'storeDown',
  'storeUp',
] as const;

function recording(told: Told): EventHooks {
  return Object.fromEntries(eventNames.map((name) => [name, (event: never) => told.push([name, event])]));
}

type Verb = 'claim' | 'settle' | 'extend' | 'purge';

/** Wraps a store: `before` is a lost request, `after` a lost reply, `hang` never answers. */
export function faulty(store: DedupStore) {
  const broken: Partial<Record<Verb, 'before' | 'after' | 'hang'>> = {};
  const calls: { verb: Verb; items: number }[] = [];
  const through = async (verb: Verb, arg: any): Promise<any> => {
    calls.push({ verb, items: Array.isArray(arg) ? arg.length : 0 });
    const fault = broken[verb];
    if (fault === 'before') throw new Error(`${verb}: request lost`);
    if (fault === 'hang') return new Promise(() => {});
    const answer = await store[verb](arg as never);
    if (fault === 'after') throw new Error(`${verb}: reply lost`);
    return answer;
  };
  const wrapped: DedupStore = {
    claim: (asks) => through('claim', asks),
    settle: (ends) => through('settle', ends),
    extend: (holds) => through('extend', holds),
    purge: (limit) => through('purge', limit),
  };
  return { store: wrapped, broken, calls };
}

/** What a promise has come to, without waiting for it. */
export function watch<T>(promise: Promise<T>): { value?: T; error?: unknown; done: boolean } {
  const seen: { value?: T; error?: unknown; done: boolean } = { done: false };
  promise.then(
    (value) => Object.assign(seen, { value, done: true }),
    (error) => Object.assign(seen, { error, done: true }),
  );
  return seen;
}

/** A promise with its ends outside. */
export function latch<T = void>(): { promise: Promise<T>; open: (value: T) => void; fail: (error: unknown) => void } {
  let open!: (value: T) => void;
  let fail!: (error: unknown) => void;
  const promise = new Promise<T>((resolve, reject) => {
    open = resolve;
    fail = reject;
  });
  return { promise, open, fail };
}

export const actions = (verdicts: readonly Verdict[]): string[] =>
  verdicts.map((verdict) => (verdict.action === 'ack' ? `ack ${verdict.outcome}` : `${verdict.action} ${verdict.reason}`));
