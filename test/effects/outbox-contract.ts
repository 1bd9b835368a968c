import { describe, expect, it } from 'vitest';
import {
  type Delivered,
  type Destination,
  type Fate,
  type OutboxAdmin,
  type OutboxMessage,
  type OutboxQueue,
  type Outgoing,
  suspectsAtOnce,
} from '../../src/effects/outbox.ts';

export type Name = 'orders' | 'mails';

/** An outbox under test. */
export interface Box {
  readonly outbox: OutboxQueue<Name> & OutboxAdmin;
  /** The same outbox, as another process would open it. */
  readonly another: () => OutboxQueue<Name> & OutboxAdmin;
  /** Publishes in a transaction of its own, which commits unless `work` rejects. */
  publishing(
    work: (publish: (destination: Name, message: OutboxMessage | readonly OutboxMessage[]) => Promise<void>) => Promise<void>,
  ): Promise<void>;
  /** Publishes without a transaction. */
  careless(): Promise<void> | void;
  /** Lets time pass. */
  advance(ms: number): Promise<void> | void;
}

const sent: Fate = { as: 'sent' };
export const textOf = ({ body }: Outgoing): string => (body === null ? 'null' : Buffer.from(body).toString());

/** Takes once, and answers the bodies that it was given. */
async function take(
  outbox: OutboxQueue<Name>,
  fate: Fate | ((text: string) => Fate) = sent,
  limit = 100,
  name: Name = 'orders',
): Promise<string[]> {
  let texts: string[] = [];
  await outbox.take(name, limit, async (messages) => {
    texts = messages.map(textOf);
    return texts.map((text) => (typeof fate === 'function' ? fate(text) : fate));
  });
  return texts;
}

/** Takes until there is nothing more. */
async function takeAll(outbox: OutboxQueue<Name>, fate?: Fate | ((text: string) => Fate)): Promise<string[]> {
  const all: string[] = [];
  for (let texts = await take(outbox, fate); texts.length > 0; texts = await take(outbox, fate)) all.push(...texts);
  return all;
}

export const message = (text: string, orderingKey?: string): OutboxMessage => ({ body: text, orderingKey });

/** The clauses of src/effects/outbox.ts. */
export function outboxContract(title: string, open: () => Promise<Box>): void {
  const publish = (box: Box, ...messages: OutboxMessage[]) => box.publishing((write) => write('orders', messages));

  describe(`${title}: the contract of outboxes`, () => {
    it('40: a message is in the outbox if, and only if, its transaction commits', async () => {
      const box = await open();
      await publish(box, message('committed'));
      await expect(
        box.publishing(async (write) => {
          await write('orders', message('rolled back'));
          throw new Error('no');
        }),
      ).rejects.toThrow('no');
      expect(await takeAll(box.outbox)).toEqual(['committed']);
      expect(await box.outbox.stats()).toEqual([]);
    });

    it('40: nothing can be published without a transaction', async () => {
      const box = await open();
      await expect((async () => box.careless())()).rejects.toThrow(expect.objectContaining({ code: 'invalid-message' }));
      expect(await takeAll(box.outbox)).toEqual([]);
    });

    it('40: what was published comes out as it went in', async () => {
      const box = await open();
      const bytes = Uint8Array.from([0, 255, 128, 10]);
      const given: OutboxMessage[] = [
        { body: 'é\u0000"\\ \u{1f600}', id: 'id-1', orderingKey: 'schlüssel', headers: { 'content-type': 'text', x: 'a\u0000\n' } },
        { body: bytes, orderingKey: 'schlüssel' },
        { body: null, orderingKey: 'schlüssel' },
        { body: { a: [1, 'ü', null] }, orderingKey: 'schlüssel' },
        { body: '', orderingKey: 'schlüssel' },
      ];
      await publish(box, ...given);
      let got: readonly Outgoing[] = [];
      await box.outbox.take('orders', 10, async (messages) => ((got = messages), messages.map(() => sent)));
      expect(got.map(({ body }) => body && [...body])).toEqual([
        [...Buffer.from('é\u0000"\\ \u{1f600}')],
        [...bytes],
        null,
        [...Buffer.from('{"a":[1,"ü",null]}')],
        [],
      ]);
      expect(got[0]).toMatchObject({ id: 'id-1', orderingKey: 'schlüssel', headers: given[0]!.headers, failures: 0 });
      expect(got[1]).toMatchObject({ headers: {} });
      expect(new Set(got.map(({ id }) => id)).size).toBe(5);
    });

    it('40: what can not be a message is refused, and the transaction goes on', async () => {
      const box = await open();
      const bad: [unknown, unknown][] = [
        ['other', message('x')],
        ['constructor', message('x')],
        ['orders', null],
        ['orders', { body: undefined }],
        ['orders', { body: () => 1 }],
        ['orders', { body: 10n }],
        ['orders', { body: { x: Number.NaN } }],
        ['orders', { body: '\ud800' }],
        ['orders', { body: 'x', id: '' }],
        ['orders', { body: 'x', id: 7 }],
        ['orders', { body: 'x', id: 'a\0b' }],
        ['orders', { body: 'x', id: 'i'.repeat(513) }],
        ['orders', { body: 'x', orderingKey: ' ' }],
        ['orders', { body: 'x', orderingKey: 'k\0' }],
        ['orders', { body: 'x', headers: { a: 1 } }],
        ['orders', [message('good'), { body: undefined }]],
      ];
      await box.publishing(async (write) => {
        for (const [destination, given] of bad)
          await expect((async () => write(destination as Name, given as OutboxMessage))()).rejects.toThrow(
            expect.objectContaining({ code: 'invalid-message' }),
          );
        await write('orders', message('good'));
      });
      expect(await takeAll(box.outbox)).toEqual(['good']);
    });

    it('41: messages of an ordering key come in the order in which they were published, `limit` at most, for their own destination only', async () => {
      const box = await open();
      await publish(box, message('1', 'k'), message('2', 'k'));
      await box.publishing(async (write) => {
        await write('mails', message('mail', 'k'));
        await write('orders', message('3', 'k'));
      });
      expect(await take(box.outbox, sent, 2)).toEqual(['1', '2']);
      expect(await take(box.outbox, sent, 2)).toEqual(['3']);
      expect(await take(box.outbox)).toEqual([]);
      expect(await take(box.outbox, sent, 2, 'mails')).toEqual(['mail']);
    });

    it('41: while messages are being sent, nobody else gets one with an ordering key of theirs', async () => {
      const box = await open();
      await publish(box, message('1', 'k'), message('2', 'k'));
      const other = box.another();
      const seen: string[][] = [];
      await box.outbox.take('orders', 1, async ([first]) => {
        seen.push([textOf(first!)]);
        seen.push(await take(other), await take(box.outbox));
        return [sent];
      });
      expect(seen).toEqual([['1'], [], []]);
      expect(await takeAll(other)).toEqual(['2']);
    });

    it('41: what is published while a take is under way comes with a later one', async () => {
      const box = await open();
      await publish(box, message('1', 'k'));
      await box.outbox.take('orders', 10, async () => {
        await publish(box, message('2', 'k'));
        return [sent];
      });
      expect(await takeAll(box.outbox)).toEqual(['2']);
    });

    it('42: what was sent is gone; what was left is still there, in its place', async () => {
      const box = await open();
      await publish(box, message('1', 'k'), message('2', 'k'), message('3', 'k'));
      expect(await take(box.outbox, (text) => ({ as: text === '1' ? 'sent' : 'left' }))).toEqual(['1', '2', '3']);
      await publish(box, message('4', 'k'));
      expect(await takeAll(box.another())).toEqual(['2', '3', '4']);
    });

    it('42: a message that is to be sent again is not due before its time, nor is what is behind it with the same ordering key', async () => {
      const box = await open();
      await publish(box, message('1', 'k'), message('2', 'k'), message('3', 'other'), message('4'));
      const again: Fate = { as: 'again', afterMs: 60_000, counted: true };
      const got = await takeAll(box.outbox, (text) => (text === '1' ? again : text === '2' ? { as: 'left' } : sent));
      expect(got.sort()).toEqual(['1', '2', '3', '4']);
      await publish(box, message('5', 'k'), message('6', 'other'));
      expect(await takeAll(box.outbox)).toEqual(['6']);
      await box.advance(60_000);
      expect(await takeAll(box.outbox)).toEqual(['1', '2', '5']);
    });

    it('42: failures are counted where they count', async () => {
      const box = await open();
      await publish(box, message('1'));
      const counts: number[] = [];
      for (const counted of [true, false, true]) {
        await box.outbox.take('orders', 1, async ([due]) => (counts.push(due!.failures), [{ as: 'again', afterMs: 0, counted }]));
      }
      await box.outbox.take('orders', 1, async ([due]) => (counts.push(due!.failures), [sent]));
      expect(counts).toEqual([0, 1, 1, 2]);
    });

    it('43: if `send` rejects, everything is as it was', async () => {
      const box = await open();
      await publish(box, message('1', 'k'), message('2', 'k'));
      const failing = box.outbox.take('orders', 10, async () => Promise.reject(new Error('no broker')));
      await expect(failing).rejects.toThrow('no broker');
      await box.advance(120_000);
      expect(await takeAll(box.another())).toEqual(['1', '2']);
    });

    it('44: answers how many messages it has handed over', async () => {
      const box = await open();
      await publish(box, message('1', 'k'), message('2', 'k'), message('3', 'k'));
      const all = async (messages: readonly Outgoing[]) => messages.map(() => sent);
      expect(await box.outbox.take('orders', 2, all)).toBe(2);
      expect(await box.outbox.take('orders', 2, all)).toBe(1);
      expect(await box.outbox.take('orders', 2, all)).toBe(0);
    });

    it('45: a parked message is listed with its reason and blocks nobody; replayed it comes behind all others; discarded it is gone', async () => {
      const box = await open();
      await publish(box, message('1', 'k'), { ...message('2', 'k'), id: 'two', headers: { a: 'b' } }, message('3', 'k'));
      expect(await take(box.outbox, (text) => (text === '3' ? { as: 'left' } : { as: 'parked', reason: `no ${text}` }))).toEqual([
        '1',
        '2',
        '3',
      ]);
      expect(await box.outbox.stats()).toEqual([{ destination: 'orders', waiting: 1, parked: 2, oldestMs: expect.any(Number) }]);
      const [first] = await box.outbox.listParked({ limit: 1 });
      expect(first).toMatchObject({ destination: 'orders', orderingKey: 'k', failures: 1, reason: 'no 1' });
      const [second, ...rest] = await box.outbox.listParked({ limit: 10, after: first!.number });
      expect(second).toMatchObject({ id: 'two', headers: { a: 'b' }, reason: 'no 2', ageMs: expect.any(Number) });
      expect(textOf(second!)).toBe('2');
      expect(rest).toEqual([]);
      expect(await box.outbox.discard(first!.number)).toBe(true);
      expect(await box.another().replay(second!.number)).toBe(true);
      expect(await box.outbox.replay(second!.number)).toBe(false);
      expect(await box.outbox.discard(first!.number)).toBe(false);
      let failures: number[] = [];
      await box.outbox.take(
        'orders',
        10,
        async (due) => ((failures = due.map((each) => each.failures)), due.map(() => ({ as: 'left' }) as const)),
      );
      expect(failures).toEqual([0, 0]);
      expect(await takeAll(box.outbox)).toEqual(['3', '2']);
      expect(await box.outbox.listParked({ limit: 10 })).toEqual([]);
    });

    /** The next messages, each with its failures. `dies`: as a process does that is sending them. */
    async function failuresOf(outbox: OutboxQueue<Name>, then: Fate | 'dies' = { as: 'left' }, name: Name = 'orders'): Promise<string[]> {
      let found: string[] = [];
      const taking = outbox.take(name, 100, async (due) => {
        found = due.map((each) => `${textOf(each)}: ${each.failures}`);
        if (then === 'dies') throw new Error('dies');
        return due.map(() => then);
      });
      await (then === 'dies' ? expect(taking).rejects.toThrow('dies') : taking);
      return found;
    }

    it('46: what a process takes first, and what has failures, has one more if the process dies of it; then it comes with few others, then alone', async () => {
      const box = await open();
      const first = Array.from({ length: suspectsAtOnce + 2 }, (_, i) => String(i));
      await publish(box, ...first.map((text) => message(text, 'k')));
      const having = (failures: number, from: number, to: number) => first.slice(from, to).map((text) => `${text}: ${failures}`);
      expect(await failuresOf(box.outbox, 'dies')).toEqual(having(0, 0, first.length));
      await publish(box, message('last', 'k'));
      await box.advance(120_000);
      const second = box.another();
      expect(await failuresOf(second, 'dies')).toEqual(having(1, 0, suspectsAtOnce));
      await box.advance(120_000);
      for (let i = 0; i < suspectsAtOnce - 1; i++) expect(await failuresOf(second, sent)).toEqual(having(2, i, i + 1));
      expect(await failuresOf(second, 'dies')).toEqual(having(2, suspectsAtOnce - 1, suspectsAtOnce));
      await box.advance(120_000);
      expect(await failuresOf(second, sent)).toEqual(having(3, suspectsAtOnce - 1, suspectsAtOnce));
      expect(await failuresOf(second, sent)).toEqual([...having(1, suspectsAtOnce, first.length), 'last: 0']);
    });

    it('46: nothing more than before if `send` answers', async () => {
      const box = await open();
      await publish(box, message('1', 'k'), message('2', 'k'));
      const again: Fate = { as: 'again', afterMs: 0, counted: true };
      expect(await failuresOf(box.outbox, { as: 'left' })).toEqual(['1: 0', '2: 0']);
      expect(await failuresOf(box.another(), again)).toEqual(['1: 0', '2: 0']);
      for (const fate of [{ as: 'left' }, { ...again, counted: false }, again] as const)
        expect(await failuresOf(box.another(), fate)).toEqual(['1: 1', '2: 1']);
      expect(await failuresOf(box.outbox)).toEqual(['1: 2']);
    });

    it('46: what has no failures comes without those behind it that have', async () => {
      const box = await open();
      await publish(box, message('1', 'k'), message('2', 'k'));
      await take(box.outbox, (text) => (text === '2' ? { as: 'again', afterMs: 0, counted: true } : { as: 'left' }));
      expect(await failuresOf(box.outbox, sent)).toEqual(['1: 0']);
      expect(await failuresOf(box.outbox, sent)).toEqual(['2: 1']);
    });

    it('46: while a message that has failures is being sent, this process sends no other one that has', async () => {
      const box = await open();
      await box.publishing(async (write) => {
        await write('orders', message('1'));
        await write('mails', message('mail'));
      });
      await failuresOf(box.outbox, 'dies');
      await failuresOf(box.outbox, 'dies', 'mails');
      await box.advance(120_000);
      const own = box.another();
      let meanwhile: string[] = ['?'];
      await own.take('orders', 1, async () => {
        meanwhile = await failuresOf(own, sent, 'mails');
        return [sent];
      });
      expect(meanwhile).toEqual([]);
      expect(await failuresOf(own, sent, 'mails')).toEqual(['mail: 1']);
    });

    it('does not bring more into memory than a few megabytes, but always one message', async () => {
      const box = await open();
      const big = 'x'.repeat(3_000_000);
      await publish(box, message(big, 'k'), message(big, 'k'), message(big, 'k'), message('small', 'k'));
      expect((await take(box.outbox)).length).toBe(2);
      expect((await take(box.outbox)).map((text) => text.length)).toEqual([3_000_000, 5]);
    });
  });
}

/** A destination in memory, which obeys a script. */
export function scripted(
  answer: (message: Outgoing, nth: number) => Delivered | Promise<Delivered> = () => ({ state: 'sent' }),
): Destination & {
  readonly got: { id: string; text: string }[];
  readonly sends: string[][];
} {
  const got: { id: string; text: string }[] = [];
  const sends: string[][] = [];
  let nth = 0;
  return {
    got,
    sends,
    async send(messages) {
      sends.push(messages.map(textOf));
      const halted = new Set<string | undefined>();
      const results: Delivered[] = [];
      for (const each of messages) {
        const halts = each.orderingKey !== undefined && halted.has(each.orderingKey);
        const result: Delivered = halts ? { state: 'failed', error: new Error('behind') } : await answer(each, nth++);
        if (result.state === 'sent') got.push({ id: each.id, text: textOf(each) });
        else halted.add(each.orderingKey);
        results.push(result);
      }
      return results;
    },
  };
}
