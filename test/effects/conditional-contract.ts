import { describe, expect, it } from 'vitest';
import {
  attribute,
  createReceiver,
  type DedupStore,
  fencedWrite,
  insertOnce,
  type SqliteTx,
  type SqlTx,
  updateIf,
} from '../../src/index.ts';
import { virtualWorld } from '../../src/testing/virtual-world.ts';
import { actions, delivery, latch } from '../support/stand.ts';

/** A database with tables `charges` (id, cents, fence) and `accounts` (id, balance, version), and a store. */
export interface Place {
  readonly tx: SqlTx | SqliteTx;
  readonly table: (name: string) => string;
  readonly store: DedupStore;
  rows(name: string): Promise<readonly object[]>;
}

export const ddl = (prefix: string) => `create table ${prefix}charges (id text primary key, cents integer, fence bigint not null);
  create table ${prefix}accounts (id text primary key, balance integer, version bigint not null);
  create table ${prefix}"we""ird $1" ("key $2" text primary key, "a.b" text)`;

/** What every database has to do. */
export function conditionalContract(title: string, open: () => Promise<Place>): void {
  describe(`conditional writes (${title})`, () => {
    it('insertOnce inserts a row once, and keeps the first', async () => {
      const { tx, table, rows } = await open();
      expect(await insertOnce(tx, table('charges'), { id: 'a', cents: 5, fence: 0 })).toBe(true);
      expect(await insertOnce(tx, table('charges'), { id: 'a', cents: 7, fence: 0 })).toBe(false);
      expect(await insertOnce(tx, table('charges'), { id: 'b', cents: 1, fence: 0 })).toBe(true);
      expect(await rows('charges')).toEqual([
        { id: 'a', cents: 5, fence: 0 },
        { id: 'b', cents: 1, fence: 0 },
      ]);
    });

    it('insertOnce: of many at once, one has inserted', async () => {
      const { tx, table } = await open();
      const all = await Promise.all(
        Array.from({ length: 50 }, (_each, i) => insertOnce(tx, table('charges'), { id: 'a', cents: i, fence: 0 })),
      );
      expect(all.filter((inserted) => inserted)).toHaveLength(1);
    });

    it('updateIf changes a row of the version that was read, and counts it up; others do nothing', async () => {
      const { tx, table, rows } = await open();
      await insertOnce(tx, table('accounts'), { id: 'a', balance: 0, version: 1 });
      await insertOnce(tx, table('accounts'), { id: 'b', balance: 0, version: 1 });
      const add = (version: number, balance: number) => updateIf(tx, table('accounts'), { where: { id: 'a' }, version, set: { balance } });
      expect(await add(1, 10)).toBe(true);
      expect(await add(1, 99)).toBe(false);
      expect(await add(2, 20)).toBe(true);
      expect(await updateIf(tx, table('accounts'), { where: { id: 'none' }, version: 1, set: { balance: 1 } })).toBe(false);
      expect(await rows('accounts')).toEqual([
        { id: 'a', balance: 20, version: 3 },
        { id: 'b', balance: 0, version: 1 },
      ]);
    });

    it('updateIf: no update of many at once is lost', async () => {
      const { tx, table, rows } = await open();
      await insertOnce(tx, table('accounts'), { id: 'a', balance: 0, version: 0 });
      const version = async () => (await rows('accounts'))[0] as { balance: number; version: number };
      const add = async () => {
        for (;;) {
          const seen = await version();
          if (await updateIf(tx, table('accounts'), { where: { id: 'a' }, version: seen.version, set: { balance: seen.balance + 1 } }))
            return;
        }
      };
      await Promise.all(Array.from({ length: 20 }, add));
      expect(await version()).toMatchObject({ balance: 20, version: 20 });
    });

    it('fencedWrite takes a first write, the same fence again, and a greater one; it refuses a smaller one', async () => {
      const { tx, table, rows } = await open();
      const write = (fence: number, cents: number) => fencedWrite(tx, table('charges'), { key: { id: 'a' }, fence, set: { cents } });
      await write(5, 50);
      await write(5, 51);
      await write(7, 70);
      await expect(write(6, 60)).rejects.toMatchObject({ code: 'claim-lost' });
      await expect(write(5, 50)).rejects.toMatchObject({ code: 'claim-lost' });
      expect(await rows('charges')).toEqual([{ id: 'a', cents: 70, fence: 7 }]);
    });

    it('takes names as they are, whatever is in them', async () => {
      const { tx, table } = await open();
      const write = () => insertOnce(tx, table('we"ird $1'), { 'key $2': 'k', 'a.b': '$1 ?' });
      expect(await write()).toBe(true);
      expect(await write()).toBe(false);
    });

    it('a handler with `guarantee: fenced` that was overtaken changes nothing by fencedWrite, and does without it', async () => {
      const { tx, table, store, rows } = await open();
      // No time passes for the zombie, so it never extends its lease, nor learns that it is over.
      const frozen = virtualWorld();
      const common = { scope: 'test', key: attribute('id'), store, guarantee: 'fenced', leaseMs: 300, backoff: { firstMs: 0 } } as const;
      const isThere = latch();
      const goOn = latch();
      const naive: number[] = [];
      const fences: number[] = [];
      const refusals: unknown[] = [];
      const zombie = createReceiver({ ...common, world: frozen }, async (_payload, ctx) => {
        isThere.open();
        await goOn.promise;
        naive.push(1);
        fences.push(ctx.fence);
        await fencedWrite(tx, table('charges'), { key: { id: ctx.message.headers['id'] }, fence: ctx.fence, set: { cents: 1 } }).catch(
          (error) => {
            refusals.push(error.code);
            throw error;
          },
        );
      });
      const owner = createReceiver(common, async (_payload, ctx) => {
        naive.push(2);
        fences.push(ctx.fence);
        await fencedWrite(tx, table('charges'), { key: { id: ctx.message.headers['id'] }, fence: ctx.fence, set: { cents: 2 } });
      });
      const late = zombie.process([delivery('a')]);
      await isThere.promise;
      for (let verdict = 'retry'; verdict !== 'ack'; ) {
        const [answer] = await owner.process([delivery('a')]);
        verdict = answer!.action;
        if (answer!.action === 'retry') await new Promise((resolve) => setTimeout(resolve, 50));
      }
      goOn.open();
      expect(actions(await late)).toEqual(['retry fenced']);
      expect(refusals).toEqual(['claim-lost']);
      expect(fences[1]!).toBeLessThan(fences[0]!);
      expect(await rows('charges')).toMatchObject([{ id: 'a', cents: 2, fence: fences[0] }]);
      // Who just writes has the zombie's word as the last one.
      expect(naive).toEqual([2, 1]);
      expect(actions(await owner.process([delivery('a')]))).toEqual(['ack duplicate']);
      await owner.stop();
    });
  });
}
