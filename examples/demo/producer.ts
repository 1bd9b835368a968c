import { setTimeout as sleep } from 'node:timers/promises';
import type { SQS } from '@aws-sdk/client-sqs';
import { type SqsSender, sqsSender } from 'idempotent-receiver/sqs';
import type { Order } from './order.ts';
import type { Queues } from './queues.ts';
import { accountsPerQueue, ordersPerSecond, sentThrice, sentTwice } from './settings.ts';

/** The producer sends every order to both sides, and keeps the list that the ledgers are compared with. */
export interface Producer {
  readonly orders: readonly Order[];
  /** Messages sent to each side: the orders and their copies. */
  readonly messages: number;
  /** Sends orders while `more` says so, and then the copies that are still due. */
  run(more: () => 'yes' | 'wait' | 'no'): Promise<void>;
}

/** An order, sent for the first, second or third time. */
interface Copy {
  readonly order: Order;
  readonly copy: number;
  readonly at: number;
}

const tickMs = 50;

/** Half of the accounts are charged through the FIFO queue. */
export function isInOrder({ account }: Order): boolean {
  return account.startsWith('fifo');
}

export function producer(client: SQS, sides: readonly Queues[]): Producer {
  const senders = sides.map(({ fifo, standard }) => ({ fifo: senderTo(client, fifo), standard: senderTo(client, standard) }));
  const orders: Order[] = [];
  const numbers = new Map<string, number>();
  let due: Copy[] = [];
  let messages = 0;

  function nextOrder(): Order {
    const queue = orders.length % 2 === 0 ? 'fifo' : 'standard';
    const account = `${queue}-${1 + Math.floor(Math.random() * accountsPerQueue)}`;
    const number = (numbers.get(account) ?? 0) + 1;
    numbers.set(account, number);
    return { id: `order-${orders.length + 1}`, account, number, cents: 100 + Math.floor(Math.random() * 9_900) };
  }

  /** A new order, and the copies of it that will follow. */
  function addOrder(now: number): void {
    const order = nextOrder();
    orders.push(order);
    due.push({ order, copy: 1, at: now });
    const luck = Math.random();
    const times = luck < sentThrice ? 3 : luck < sentThrice + sentTwice ? 2 : 1;
    for (let copy = 2; copy <= times; copy++) {
      // A customer clicks twice, or a client sends again because the answer was lost; or a producer that was down sends again
      // whatever it is not sure of, long after.
      const atOnce = copy === 2 && Math.random() < 0.5;
      due.push({ order, copy, at: atOnce ? now : now + 500 + Math.random() * 4_000 });
    }
  }

  function takeDue(now: number): Copy[] {
    const taken = due.filter(({ at }) => at <= now);
    due = due.filter(({ at }) => at > now);
    return taken;
  }

  async function send(copies: readonly Copy[]): Promise<void> {
    messages += copies.length;
    const parts = { fifo: copies.filter(({ order }) => isInOrder(order)), standard: copies.filter(({ order }) => !isInOrder(order)) };
    const sent = await Promise.all(senders.flatMap(({ fifo, standard }) => [fifo.send(parts.fifo), standard.send(parts.standard)]));
    const failed = sent.flat().find((result) => result.state === 'failed');
    if (failed?.state === 'failed') throw failed.error;
  }

  return {
    orders,
    get messages() {
      return messages;
    },
    async run(more) {
      let last = performance.now();
      let owed = 0;
      for (let answer = more(); answer !== 'no'; answer = more()) {
        const now = performance.now();
        owed += answer === 'yes' ? ((now - last) * ordersPerSecond) / 1_000 : 0;
        last = now;
        for (; owed >= 1; owed--) addOrder(now);
        await send(takeDue(now));
        await sleep(tickMs);
      }
      await send(takeDue(Number.POSITIVE_INFINITY));
    },
  };
}

/**
 * `sqsSender` gives each message a MessageDeduplicationId made of its key, and within five minutes SQS drops what comes again under
 * the same one. After these five minutes it delivers it. The demo has no time to wait for them, so a copy gets another key here: to SQS
 * it looks as the late one would. The receiver does not look at this key; its own is the id in the body.
 */
function senderTo(client: SQS, queueUrl: string): SqsSender<Copy> {
  return sqsSender({
    client,
    queueUrl,
    key: ({ order, copy }: Copy) => (copy === 1 ? order.id : `${order.id}-late-${copy}`),
    group: ({ order }) => order.account,
    body: ({ order }) => JSON.stringify(order),
  });
}
