import { describe, expect, it } from 'vitest';
import type { TransactionalStore } from '../../../src/store.ts';
import type { Watermarks } from '../../../src/watermarks.ts';

/** What a database offers for the contract: two connections to one place, so that owners can be in each other's way. */
export interface WatermarksHarness {
  readonly title: string;
  /** Watermarks, and two stores whose transactions are in the same new database. */
  open(): Promise<{
    rows: Watermarks<any>;
    stores: [TransactionalStore<any>, TransactionalStore<any>];
    close: (() => void | Promise<void>) | undefined;
  }>;
}

/** The contract of src/watermarks.ts, by its numbers. */
export function watermarksContract({ title, open }: WatermarksHarness): void {
  const stand = async () => {
    const { rows, stores, close } = await open();
    const within =
      (store: TransactionalStore<any>) =>
      <R>(work: (tx: unknown) => Promise<R>): Promise<R> =>
        store.unit((unit) => unit.savepoint(work));
    return { rows, one: within(stores[0]), other: within(stores[1]), close };
  };
  const at = (next: number, done = '') => ({ next, done });

  describe(title, () => {
    it('40: whoever takes a row last is the only one who advances it; nothing is in it at first', async () => {
      const { rows, one, other, close } = await stand();
      expect(await one((tx) => rows.take(tx, 'p', 'a'))).toBeUndefined();
      expect(await one((tx) => rows.advance(tx, 'p', 'a', at(5)))).toBe(true);
      expect(await other((tx) => rows.take(tx, 'p', 'b'))).toEqual(at(5));
      expect(await one((tx) => rows.advance(tx, 'p', 'a', at(6)))).toBe(false);
      expect(await other((tx) => rows.advance(tx, 'p', 'b', at(7)))).toBe(true);
      expect(await other((tx) => rows.read(tx, 'p', 'b'))).toEqual(at(7));
      await close?.();
    });

    it('40: an advance that is not committed yet when the row is taken commits before, or not at all', async () => {
      const { rows, one, other, close } = await stand();
      await one((tx) => rows.take(tx, 'p', 'a'));
      let taken: unknown;
      let taking: Promise<unknown> = Promise.resolve();
      const advanced = one(async (tx) => {
        const is = await rows.advance(tx, 'p', 'a', at(3));
        taking = other((its) => rows.take(its, 'p', 'b')).then((row) => (taken = row));
        await new Promise((resolve) => setTimeout(resolve, 50));
        expect(taken).toBeUndefined();
        return is;
      });
      expect(await advanced).toBe(true);
      await taking;
      expect(taken).toEqual(at(3));
      await close?.();
    });

    it('41: an advance without a condition never goes back, and leaves nothing but the place', async () => {
      const { rows, one, close } = await stand();
      await one((tx) => rows.take(tx, 'p', 'a'));
      await one((tx) => rows.advance(tx, 'p', 'a', at(9, '12-13'), null));
      expect(await one((tx) => rows.advance(tx, 'p', 'a', at(4)))).toBe(true);
      expect(await one((tx) => rows.read(tx, 'p', 'a'))).toEqual(at(9));
      expect(await one((tx) => rows.advance(tx, 'p', 'a', at(11)))).toBe(true);
      expect(await one((tx) => rows.read(tx, 'p', 'a'))).toEqual(at(11));
      await close?.();
    });

    it('42, 43: an advance from what is not there changes nothing', async () => {
      const { rows, one, close } = await stand();
      await one((tx) => rows.take(tx, 'p', 'a'));
      expect(await one((tx) => rows.advance(tx, 'p', 'a', at(1), at(0)))).toBe(false);
      expect(await one((tx) => rows.advance(tx, 'p', 'a', at(2, '4-5'), null))).toBe(true);
      expect(await one((tx) => rows.advance(tx, 'p', 'a', at(3), null))).toBe(false);
      expect(await one((tx) => rows.advance(tx, 'p', 'a', at(3), at(2)))).toBe(false);
      expect(await one((tx) => rows.advance(tx, 'p', 'a', at(6), at(2, '4-5')))).toBe(true);
      expect(await one((tx) => rows.read(tx, 'p', 'a'))).toEqual(at(6));
      await close?.();
    });

    it('44: reading tells an earlier owner that the row is lost, and one of a row that nobody has taken', async () => {
      const { rows, one, other, close } = await stand();
      await one((tx) => rows.take(tx, 'p', 'a'));
      expect(await one((tx) => rows.read(tx, 'p', 'a'))).toBeUndefined();
      await other((tx) => rows.take(tx, 'p', 'b'));
      expect(await one((tx) => rows.read(tx, 'p', 'a'))).toBe('lost');
      expect(await one((tx) => rows.read(tx, 'q', 'a'))).toBe('lost');
      await close?.();
    });

    it('an advance is undone with its transaction, and rows have nothing to do with each other', async () => {
      const { rows, one, close } = await stand();
      await one((tx) => rows.take(tx, 'p', 'a'));
      await one((tx) => rows.take(tx, 'q', 'a'));
      await one((tx) => rows.advance(tx, 'q', 'a', at(2 ** 40)));
      const failing = one(async (tx) => {
        await rows.advance(tx, 'p', 'a', at(3));
        throw new Error('no');
      });
      await expect(failing).rejects.toThrow('no');
      expect(await one((tx) => rows.read(tx, 'p', 'a'))).toBeUndefined();
      expect(await one((tx) => rows.read(tx, 'q', 'a'))).toEqual(at(2 ** 40));
      await close?.();
    });
  });
}
