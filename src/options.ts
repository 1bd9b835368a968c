import type { World } from './clock.ts';
import { realWorld } from './clock.ts';
import { type Codec, jsonCodec } from './codec.ts';
import { isJournal, type Journal } from './effects/journal.ts';
import type { Outbox } from './effects/outbox.ts';
import { expectNumber, expectOptions, refuseOption } from './errors.ts';
import type { EventHooks } from './events.ts';
import type { FingerprintOption } from './fingerprint.ts';
import type { Guarantee, GuaranteeOf, TxOf } from './guarantee.ts';
import type { KeyStrategy } from './key.ts';
import type { Message } from './message.ts';
import type { StandardSchema } from './schema.ts';
import type { DedupStore, TransactionalStore } from './store.ts';

/** What every way of using a store shares. All times are in milliseconds. */
export interface CommonOptions {
  /** Who handles: the name of this consumer. Two consumers of one message need two scopes; one consumer keeps its scope for ever. */
  readonly scope: string;
  /** How long a claim is held without a sign of life. A dead worker's message can be taken after it. @default 30_000 */
  readonly leaseMs?: number;
  /** How long a message is remembered. At least as long as the broker can redeliver it. @default 14 days */
  readonly retentionMs?: number;
  /** Tries before a message is parked, counted durably, processes that died included. @default 10 */
  readonly maxAttempts?: number;
  /** How long a duplicate of a running message waits for it before it is given back. @default 0; 30_000 for `once` */
  readonly waitMs?: number;
  /** A store call that takes longer counts as failed, its outcome unknown. Less than `leaseMs`. @default a third of `leaseMs`, 10_000 at most */
  readonly storeTimeoutMs?: number;
  /** How results are written. @default JSON */
  readonly codec?: Codec;
  /** Longest encoded result, in bytes. @default 65_536 */
  readonly maxResultBytes?: number;
  /** How many completed keys this process remembers by itself; 0 turns it off. @default 10_000 */
  readonly cacheSize?: number;
  /** How often expired records are purged, by the way of other work; `Infinity` leaves it to you. @default 60_000 */
  readonly purgeEveryMs?: number;
  /** Hooks for metrics and logs. */
  readonly on?: EventHooks;
  /** Time and chance. @default the machine's own */
  readonly world?: World;
}

/** Options of a receiver around a handler of messages. */
export interface ReceiverOptionsBase<Store, Payload> extends CommonOptions {
  readonly store: Store;
  /** What makes two deliveries the same message: `header`, `attribute`, `body`, `cloudEvent`, `contentHash`, `messageId`, or your own. */
  readonly key: KeyStrategy;
  /** Makes the payload of the body. @default text and bytes are read as JSON, everything else is taken as it is */
  readonly decode?: (message: Message) => unknown;
  /** Checks and types the payload: zod, or any Standard Schema. */
  readonly schema?: StandardSchema<Payload>;
  /** What of the payload is compared between messages with the same key. @default all of it */
  readonly fingerprint?: FingerprintOption;
  /** Same key, other payload: put it aside, or leave it to the broker. It is never acked. @default 'dead-letter' */
  readonly onMismatch?: 'dead-letter' | 'retry';
  /** A message older than `retentionMs` that the store does not know: it may be new, or forgotten. @default 'dead-letter' */
  readonly onTooOld?: 'dead-letter' | 'process';
  /** Handlers that run at once. In transactional mode they run one after another inside a transaction. @default 10 */
  readonly concurrency?: number;
  /** The handler's signal is aborted after this time. @default 300_000 */
  readonly handlerTimeoutMs?: number;
  /** Delay before the next try: `firstMs`, doubled by each failure up to `maxMs`, less up to a half by chance. @default 1_000 and 300_000 */
  readonly backoff?: { readonly firstMs?: number; readonly maxMs?: number };
  /** Keeps the handler's result for duplicates. @default false */
  readonly results?: boolean;
  /** Steps that older code had and this code has no more: what the journal tells of them is left alone. Those of a saga as `saga/step`. */
  readonly retiredSteps?: readonly string[];
  /** Transactional mode: messages that share one transaction at most. @default 500 */
  readonly groupSize?: number;
}

/**
 * Options of `createReceiver`. `guarantee` is the store's best by default: `transactional` if it has transactions, `leased` otherwise.
 * What a store can't promise does not compile. `onStoreDown: 'run'` runs handlers without any protection while the store is down, and exists only
 * where duplicates are possible anyway.
 */
export type ReceiverOptions<Store, Payload, G extends Guarantee, Name extends string = never> = ReceiverOptionsBase<Store, Payload> & {
  readonly guarantee?: G & GuaranteeOf<Store>;
} & (G extends 'transactional'
    ? {
        /**
         * For `ctx.step`, in transactional mode: a store whose records are written beside the transaction, so that a rollback leaves them alone.
         * Each message then has a transaction of its own, which is open as long as its steps take, so `groupSize` is 1.
         */
        readonly journal?: (DedupStore & Journal) | undefined;
        /** For `ctx.publish`: an outbox in the store's database, so that messages commit with the handler's effects. */
        readonly outbox?: Outbox<TxOf<Store>, Name> | undefined;
      }
    : { readonly journal?: undefined; readonly outbox?: undefined }) &
  (G extends 'leased' ? { readonly onStoreDown?: 'retry' | 'run' } : { readonly onStoreDown?: 'retry' });

export interface CommonSettings extends Required<Omit<CommonOptions, 'on'>> {
  readonly on: EventHooks;
}

const day = 86_400_000;
const longest = 36_500 * day;

/** @throws ReceiverError `invalid-option` */
export function expectScope(scope: unknown): string {
  if (typeof scope === 'string' && scope.trim() !== '' && scope.isWellFormed()) return scope;
  return refuseOption('scope', 'the name of this consumer', scope);
}

/** @throws ReceiverError `invalid-option` */
export function expectRetention(retentionMs: unknown, atLeast: number): number {
  return expectNumber('retentionMs', retentionMs, { atLeast, atMost: longest, integer: true });
}

export function commonSettings(options: CommonOptions, defaults: { readonly waitMs: number }): CommonSettings {
  expectOptions(options, 'an object');
  const scope = expectScope(options.scope);
  const leaseMs = expectNumber('leaseMs', options.leaseMs ?? 30_000, { atLeast: 100, atMost: day, integer: true });
  return {
    scope,
    leaseMs,
    retentionMs: expectRetention(options.retentionMs ?? 14 * day, leaseMs),
    maxAttempts: expectNumber('maxAttempts', options.maxAttempts ?? 10, { atLeast: 1, integer: 'or Infinity' }),
    waitMs: expectNumber('waitMs', options.waitMs ?? defaults.waitMs, { atLeast: 0 }),
    storeTimeoutMs: expectNumber('storeTimeoutMs', options.storeTimeoutMs ?? Math.min(10_000, leaseMs / 3), {
      atLeast: 1,
      atMost: leaseMs - 1,
    }),
    codec: withMethods('codec', options.codec ?? jsonCodec, ['encode', 'decode'], 'a codec with `encode` and `decode`'),
    maxResultBytes: expectNumber('maxResultBytes', options.maxResultBytes ?? 65_536, { atLeast: 1, integer: true }),
    cacheSize: expectNumber('cacheSize', options.cacheSize ?? 10_000, { atLeast: 0, integer: true }),
    purgeEveryMs: expectNumber('purgeEveryMs', options.purgeEveryMs ?? 60_000, { atLeast: 1 }),
    on: hooks(options.on ?? {}),
    world: world(options.world ?? realWorld),
  };
}

export interface ReceiverSettings extends CommonSettings {
  readonly guarantee: Guarantee;
  readonly key: KeyStrategy;
  readonly decode: (message: Message) => unknown;
  readonly schema: StandardSchema<unknown> | undefined;
  readonly onMismatch: 'dead-letter' | 'retry';
  readonly onTooOld: 'dead-letter' | 'process';
  readonly onStoreDown: 'retry' | 'run';
  readonly concurrency: number;
  readonly handlerTimeoutMs: number;
  readonly backoff: { readonly firstMs: number; readonly maxMs: number };
  readonly results: boolean;
  readonly groupSize: number;
  readonly retiredSteps: readonly string[];
  readonly journal: (DedupStore & Journal) | undefined;
  readonly outbox: Outbox<unknown> | undefined;
}

export function receiverSettings(options: ReceiverOptions<unknown, unknown, Guarantee>): ReceiverSettings {
  const common = commonSettings(options, { waitMs: 0 });
  const { store, key } = options;
  const offers = offersOf(store);
  if (offers.length === 0) refuseOption('store', 'a DedupStore or a TransactionalStore', store);
  if (typeof key !== 'function') refuseOption('key', "a key strategy such as header('message-id') or body((o) => o.id)", key);
  const guarantee = oneOf('guarantee', options.guarantee, offers, offers[0]!);
  const journal = journalOf(options.journal, store, guarantee);
  const onStoreDown = oneOf('onStoreDown', options.onStoreDown, guarantee === 'leased' ? ['retry', 'run'] : ['retry'], 'retry');
  const backoff = options.backoff ?? {};
  if (typeof backoff !== 'object') refuseOption('backoff', '`{ firstMs, maxMs }`', backoff);
  const firstMs = expectNumber('backoff.firstMs', backoff.firstMs ?? 1_000, { atLeast: 0, atMost: longest });
  const maxMs = expectNumber('backoff.maxMs', backoff.maxMs ?? Math.max(firstMs, 300_000), { atLeast: firstMs, atMost: longest });
  const { decode = decodeJson, schema, results = false, retiredSteps = [], outbox } = options;
  if (outbox !== undefined && (guarantee !== 'transactional' || !hasMethods(outbox, ['publish'])))
    refuseOption('outbox', 'an outbox, in transactional mode', outbox);
  if (!Array.isArray(retiredSteps) || !retiredSteps.every((name) => typeof name === 'string'))
    refuseOption('retiredSteps', 'a list of names', retiredSteps);
  if (typeof decode !== 'function') refuseOption('decode', 'a function', decode);
  // Schemas of older libraries have no such member, and would fail on every message.
  if (schema !== undefined && typeof schema?.['~standard']?.validate !== 'function')
    refuseOption('schema', 'a Standard Schema, such as one of zod 4', schema);
  if (typeof results !== 'boolean') refuseOption('results', 'true or false', results);
  if (results && guarantee === 'transactional' && (store as TransactionalStore<unknown>).keepsResults === false)
    refuseOption('results', 'false, because the store keeps none: use another one for them', results);
  return {
    ...common,
    guarantee,
    key,
    decode,
    schema,
    onMismatch: oneOf('onMismatch', options.onMismatch, ['dead-letter', 'retry'], 'dead-letter'),
    onTooOld: oneOf('onTooOld', options.onTooOld, ['dead-letter', 'process'], 'dead-letter'),
    onStoreDown,
    concurrency: expectNumber('concurrency', options.concurrency ?? 10, { atLeast: 1, integer: 'or Infinity' }),
    handlerTimeoutMs: expectNumber('handlerTimeoutMs', options.handlerTimeoutMs ?? 300_000, { atLeast: 1 }),
    backoff: { firstMs, maxMs },
    results,
    groupSize: expectNumber('groupSize', options.groupSize ?? (journal ? 1 : 500), {
      atLeast: 1,
      ...(journal && { atMost: 1 }),
      integer: true,
    }),
    retiredSteps,
    journal,
    outbox,
  };
}

function journalOf(journal: unknown, store: unknown, guarantee: Guarantee): (DedupStore & Journal) | undefined {
  if (journal === undefined) return undefined;
  if (guarantee !== 'transactional')
    refuseOption('journal', `left out: the steps of a ${guarantee} handler are kept in \`store\``, journal);
  if (!isDedupStore(journal) || !isJournal(journal)) refuseOption('journal', 'a DedupStore that is a Journal', journal);
  if (journal === store && !journal.besideUnits)
    refuseOption(
      'journal',
      'another store, or one with a connection to spare: while a transaction is open in this one, nothing can be written beside it',
      'the store itself',
    );
  return journal;
}

export function isDedupStore(store: unknown): store is DedupStore {
  return hasMethods(store, ['claim', 'settle', 'extend', 'purge']);
}

export function isTransactionalStore(store: unknown): store is TransactionalStore<unknown> {
  return hasMethods(store, ['unit']);
}

/** What a store can promise, the best first. */
function offersOf(store: unknown): Guarantee[] {
  return [
    ...(isTransactionalStore(store) ? (['transactional'] as const) : []),
    ...(isDedupStore(store) ? (['leased', 'fenced'] as const) : []),
  ];
}

function hasMethods(value: unknown, names: readonly string[]): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return names.every((name) => typeof (value as Record<string, unknown>)[name] === 'function');
}

function withMethods<T>(name: string, value: T, methods: readonly string[], expected: string): T {
  return hasMethods(value, methods) ? value : refuseOption(name, expected, value);
}

function hooks(on: EventHooks): EventHooks {
  if (typeof on !== 'object') refuseOption('on', 'hooks by event name', on);
  for (const [name, hook] of Object.entries(on)) {
    if (hook !== undefined && typeof hook !== 'function') refuseOption(`on.${name}`, 'a function', hook);
  }
  return on;
}

function world(given: World): World {
  withMethods('world.clock', given.clock, ['now', 'wall', 'after'], 'a clock with `now`, `wall` and `after`');
  withMethods('world.random', given.random, ['number', 'token'], 'a random with `number` and `token`');
  return given;
}

function oneOf<T extends string>(name: string, value: T | undefined, allowed: readonly T[], byDefault: T): T {
  if (value === undefined) return byDefault;
  if (allowed.includes(value)) return value;
  return refuseOption(name, allowed.map((each) => `'${each}'`).join(' or '), value);
}

/** Whole texts only, so that it remembers nothing from one to the next. */
const utf8 = new TextDecoder('utf-8', { fatal: true });

function decodeJson({ body }: Message): unknown {
  if (typeof body === 'string') return JSON.parse(body);
  if (body instanceof Uint8Array) return JSON.parse(utf8.decode(body));
  return body;
}
