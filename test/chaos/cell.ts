/** What a chaos run is about: a store, a broker, and what the handler is promised. */
export interface Cell {
  readonly store: StoreName;
  readonly broker: BrokerName;
  readonly mode: Mode;
}

export type StoreName = 'sqlite' | 'redis' | 'postgres';
export type BrokerName = 'sqs-fifo' | 'sqs-standard' | 'kafka';
/** `naive`: no library at all. It has to fail, or the harness is blind. */
export type Mode = 'transactional' | 'leased' | 'fenced' | 'naive';

const storeNames: readonly StoreName[] = ['sqlite', 'redis', 'postgres'];
const brokerNames: readonly BrokerName[] = ['sqs-fifo', 'sqs-standard', 'kafka'];

/** What each store can promise. The naive consumer needs none, and runs beside the first. */
const modesOf: Readonly<Record<StoreName, readonly Mode[]>> = {
  sqlite: ['naive', 'transactional', 'leased', 'fenced'],
  redis: ['leased', 'fenced'],
  postgres: ['transactional', 'leased', 'fenced'],
};

/** All of them. Cells of one broker follow each other. */
export const matrix: readonly Cell[] = brokerNames.flatMap((broker) =>
  storeNames.flatMap((store) => modesOf[store].map((mode) => ({ store, broker, mode }))),
);

export const nameOf = ({ store, broker, mode }: Cell): string =>
  mode === 'naive' ? `naive × ${broker}` : `${store} × ${broker} × ${mode}`;

/** How much has to happen until a run counts. */
export interface Aim {
  readonly seconds: number;
  readonly messages: number;
  readonly kills: number;
  /** For longer than the lease. */
  readonly stops: number;
  readonly storeFaults: number;
  readonly brokerFaults: number;
}

/** 20,000 messages, 250 kills and 120 stops a minute. A cell that is slower goes on until it has them, up to `limitOf`. */
export function aimOf(seconds: number): Aim {
  const part = (ofAMinute: number) => Math.ceil((ofAMinute * seconds) / 60);
  return {
    seconds,
    ...{ messages: part(20_000), kills: part(250), stops: part(120), storeFaults: part(12), brokerFaults: part(6) },
  };
}

/** So many seconds may pass until there was enough. */
export const limitOf = ({ seconds }: Aim): number => Math.max(120, 8 * seconds);

/** All that follows from the lease. */
export interface Times {
  readonly leaseMs: number;
  readonly storeTimeoutMs: number;
  /** SQS counts in seconds. */
  readonly visibilityMs: number;
  readonly sessionMs: number;
  /** Longer than the lease; the longer half of them longer than what the broker waits for too. */
  readonly stopMs: { readonly atLeast: number; readonly atMost: number };
}

/** Short, so that much happens in a minute; on a machine that has to do other things, give it a longer lease. */
export function timesOf(leaseMs: number): Times {
  const visibilityMs = 1_000 * (Math.floor(leaseMs / 1_000) + 1);
  const sessionMs = Math.max(1_200, Math.ceil(1.5 * leaseMs));
  const brokerMs = Math.max(visibilityMs, sessionMs);
  return {
    ...{ leaseMs, storeTimeoutMs: Math.floor(leaseMs * 0.7), visibilityMs, sessionMs },
    stopMs: { atLeast: 1.2 * leaseMs, atMost: 2 * brokerMs - 1.2 * leaseMs },
  };
}

/** Of a message, as the broker has it. `n` grows within a key. */
export interface Order {
  readonly id: string;
  readonly key: string;
  readonly n: number;
}
