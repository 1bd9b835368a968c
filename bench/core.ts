/**
 * What the receiver itself costs, without any store, broker or handler worth the name: batches of 500 small JSON messages, against the least
 * that dedup needs of each, which is to parse it and to digest its key. In every case messages are made in the same way.
 */
import { hash } from 'node:crypto';
import { attribute, createReceiver, type Delivery, type Receiver } from 'idempotent-receiver';
import { memoryStore } from 'idempotent-receiver/memory';
import type { Answer, Ask, DedupStore, TransactionalStore } from '../src/store.ts';
import { type Bench, type Contender, sideBySide } from './bench.ts';

const batchSize = 500;
const accounts = 100;

/** About 200 bytes each. */
function deliveries(batch: number, ordered: boolean): Delivery[] {
  return Array.from({ length: batchSize }, (_, i) => {
    const id = `order-${batch}-${i}`;
    const account = (batch * 7 + i * 13) % accounts;
    const body = `{"id":"${id}","account":${account},"amount":${1 + (i % 100)},"currency":"EUR","customer":{"name":"Ada","country":"GB"},"lines":[{"sku":"A-1","quantity":2},{"sku":"B-2","quantity":1}],"note":"leave it at the door"}`;
    const message = { id, body, headers: { 'message-id': id } };
    return ordered ? { message, orderingKey: `account-${account}` } : { message };
  });
}

function floor(name: string): Contender {
  return {
    name,
    async run(batch) {
      const all = deliveries(batch, false);
      let sum = 0;
      for (const { message } of all) {
        sum += (JSON.parse(message.body as string) as { amount: number }).amount;
        sum += hash('sha256', message.headers['message-id']!, 'base64url').length;
      }
      if (sum === 0) throw new Error('Expected work to be done');
      return all.length;
    },
    close: () => {},
  };
}

const claimed: Answer = { state: 'claimed', fence: 1, attempt: 1, orphaned: false };
const claimAll = async (asks: readonly Ask[]) => asks.map(() => claimed);

/** Says yes to everything. */
const yes: DedupStore = {
  claim: claimAll,
  settle: async (ends) => ends.map(() => 'ok' as const),
  extend: async (holds) => holds.map(() => 'ok' as const),
  purge: async () => 0,
};

const yesInUnits: TransactionalStore<null> = {
  unit: (work) => work({ record: claimAll, settle: async (ends) => ends.map(() => 'ok' as const), savepoint: async (run) => run(null) }),
};

function throughReceiver(name: string, receiver: Receiver, ordered: boolean): Contender {
  return {
    name,
    async run(batch) {
      const all = deliveries(batch, ordered);
      const verdicts = await receiver.process(all);
      if (verdicts.some(({ action }) => action !== 'ack')) throw new Error('Expected every message to be handled');
      return all.length;
    },
    close: () => void receiver.stop(),
  };
}

const common = { scope: 'bench', key: attribute('message-id') };

function leased(name: string, store: DedupStore, ordered: boolean): Contender {
  return throughReceiver(
    name,
    createReceiver({ ...common, store, concurrency: batchSize }, () => {}),
    ordered,
  );
}

function transactional(name: string, ordered: boolean): Contender {
  return throughReceiver(
    name,
    createReceiver({ ...common, store: yesInUnits }, () => {}),
    ordered,
  );
}

export const bench: Bench = async ({ seconds }) => {
  const least = 'parse and digest the key, by hand';
  const cases = await sideBySide(
    [
      floor(least),
      leased('leased', yes, false),
      leased('leased, ordered', yes, true),
      leased('leased, memory store', memoryStore(), false),
      transactional('transactional', false),
      transactional('transactional, ordered', true),
    ],
    { seconds, rounds: 9 },
  );
  for (const { name, perSecond } of cases) console.log(`${(1e6 / perSecond).toFixed(2).padStart(7)} µs  ${name}`);
  return { cases, aims: [] };
};
