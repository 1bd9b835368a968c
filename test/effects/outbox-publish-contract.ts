import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../adapters/stores/memory.ts';
import type { AnyHandler } from '../../src/handler.ts';
import { attribute, type OutboxAdmin, type OutboxQueue, type Outgoing, type Receiver } from '../../src/index.ts';
import { actions, delivery } from '../support/stand.ts';
import { type Name, textOf } from './outbox-contract.ts';

/** A place where a receiver and an outbox share a database. */
export interface Place {
  readonly outbox: OutboxQueue<Name> & OutboxAdmin;
  receiver(handler: AnyHandler, options?: object): Receiver;
  /** Writes an effect of the handler's own. */
  effect(tx: any, text: string): Promise<void> | void;
  effects(): Promise<string[]>;
  /** The ids that a transaction has published, which nobody else sees yet. */
  idsInside(tx: any): Promise<string[]>;
}

export const common = { scope: 'test', key: attribute('id'), backoff: { firstMs: 0 } };
export const destinations = ['orders', 'mails'] as const;

/** Everything that is waiting for a destination, which it leaves there. */
async function waiting(outbox: OutboxQueue<Name>, name: Name = 'orders'): Promise<Outgoing[]> {
  const all: Outgoing[] = [];
  const some = () => outbox.take(name, 1_000, async (due) => (all.push(...due), due.map(() => ({ as: 'sent' }) as const)));
  while ((await some()) > 0);
  return all;
}

export const texts = async (outbox: OutboxQueue<Name>, name?: Name) => (await waiting(outbox, name)).map(textOf).toSorted();

/** What a handler with an outbox can rely on. */
export function publishContract(title: string, open: () => Promise<Place>): void {
  describe(`a handler that publishes (${title})`, () => {
    it('publishes if, and only if, it succeeds, whatever becomes of the others in its batch', async () => {
      const place = await open();
      const receiver = place.receiver(async (payload, ctx) => {
        await place.effect(ctx.tx, payload.id);
        await ctx.publish('orders', { body: payload.id, orderingKey: 'k' });
        await ctx.publish('mails', [{ body: 'a' }, { body: 'b' }]);
        if (payload.id === '2') throw new Error('no');
      });
      const verdicts = await receiver.process(['1', '2', '3', '1'].map((id) => delivery(id)));
      expect(actions(verdicts)).toEqual(['ack completed', 'retry failed', 'ack completed', 'ack duplicate']);
      expect(await place.effects()).toEqual(['1', '3']);
      expect(await texts(place.outbox)).toEqual(['1', '3']);
      expect(await texts(place.outbox, 'mails')).toEqual(['a', 'a', 'b', 'b']);
      await receiver.stop();
    });

    it('gives a message the same id on each attempt, another for each place, destination and cause, and one of its own if it has one', async () => {
      const place = await open();
      const seen: string[][] = [];
      const run = async (id: string, fails: boolean) => {
        const receiver = place.receiver(
          async (_payload, ctx) => {
            await ctx.publish('orders', { body: 'x' });
            await ctx.publish('orders', [{ body: 'y' }, { body: 'z' }, { body: 'own', id: ctx.uuid('own') }]);
            await ctx.publish('orders', { body: 'w' });
            await ctx.publish('mails', { body: 'x' });
            if (fails) seen.push((await place.idsInside(ctx.tx)).toSorted());
            if (fails) throw new Error('again');
          },
          { cacheSize: 0 },
        );
        const [verdict] = await receiver.process([delivery(id)]);
        await receiver.stop();
        return verdict!.action;
      };
      expect(await run('1', true)).toBe('retry');
      expect(await run('1', true)).toBe('retry');
      expect(await run('1', false)).toBe('ack');
      expect(await run('2', false)).toBe('ack');
      const ids = [...(await waiting(place.outbox)), ...(await waiting(place.outbox, 'mails'))].map(({ id }) => id);
      expect(new Set(ids).size).toBe(12);
      expect(seen[0]).toHaveLength(6);
      expect(seen[1]).toEqual(seen[0]);
      for (const id of seen[0]!) expect(ids).toContain(id);
    });

    it('has what it did not wait for waited for, and fails if that fails', async () => {
      const place = await open();
      const receiver = place.receiver((payload, ctx) => {
        void ctx.publish('orders', { body: payload.id });
        if (payload.id === 'bad') void ctx.publish('orders', { body: undefined });
      });
      expect(actions(await receiver.process([delivery('good'), delivery('bad')]))).toEqual(['ack completed', 'retry failed']);
      expect(await texts(place.outbox)).toEqual(['good']);
      await receiver.stop();
    });

    it('can not publish after it has ended: the transaction is others’ by then', async () => {
      const place = await open();
      let late: Promise<void> | undefined;
      let kept: any;
      const receiver = place.receiver((payload, ctx) => {
        if (payload.id === '1') kept = ctx;
        else late = kept.publish('orders', { body: 'late' });
      });
      await receiver.process([delivery('1'), delivery('2')]);
      await expect(late).rejects.toMatchObject({
        code: 'invalid-message',
        message: 'A message for orders was published after its handler had ended',
      });
      expect(await texts(place.outbox)).toEqual([]);
      await receiver.stop();
    });

    it('gives ids that another version of this library gives too: a message may be tried again by one', async () => {
      const place = await open();
      const receiver = place.receiver((_payload, ctx) =>
        ctx.publish('orders', [
          { body: 'x', orderingKey: 'k' },
          { body: 'y', orderingKey: 'k' },
        ]),
      );
      await receiver.process([delivery('1')]);
      expect((await waiting(place.outbox)).map(({ id }) => id)).toEqual([
        'rL4qNphpypW_N-_JiabhltOnRt_NVCSr',
        '5mbcswIkb8Lwe2XwAzlbxbC2logq1F_3',
      ]);
      await receiver.stop();
    });

    it('has its steps waited for when what it has published fails, whose error is told', async () => {
      const place = await open();
      const errors: unknown[] = [];
      const steps: string[] = [];
      const receiver = place.receiver(
        (_payload, ctx) => {
          void ctx.publish('orders', { body: undefined }).catch(() => {});
          const step = async () => {
            await new Promise((resolve) => setImmediate(resolve));
            steps.push('ended');
            throw new Error('of the step');
          };
          void ctx.step('forgotten', step).catch(() => {});
        },
        { journal: memoryStore(), on: { released: ({ error }: { error: unknown }) => errors.push(error) } },
      );
      expect(actions(await receiver.process([delivery('1')]))).toEqual(['retry failed']);
      expect(steps).toEqual(['ended']);
      expect(errors).toEqual([expect.objectContaining({ code: 'invalid-message' })]);
      await receiver.stop();
    });

    it('fails with the error of what it did not wait for, and refuses what is no message', async () => {
      const place = await open();
      const errors: unknown[] = [];
      const receiver = place.receiver(
        (payload, ctx) => {
          void ctx.publish(payload.id, null).catch(() => {});
        },
        { on: { released: ({ error }: { error: unknown }) => errors.push(error) } },
      );
      expect(actions(await receiver.process([delivery('orders')]))).toEqual(['retry failed']);
      expect(errors).toEqual([expect.objectContaining({ code: 'invalid-message', message: expect.stringContaining('Expected a body') })]);
      await receiver.stop();
    });

    it('has to be in a transaction', async () => {
      const place = await open();
      expect(() => place.receiver(() => {}, { guarantee: 'leased' })).toThrow(/`outbox` to be an outbox, in transactional mode/);
      expect(() => place.receiver(() => {}, { outbox: {} })).toThrow(/`outbox`/);
    });
  });
}
