import { DatabaseSync } from 'node:sqlite';
import type { Order } from './order.ts';

/**
 * The ledger is what counts: one row for each charge that took effect. It has no unique index on the order, on purpose: that would stop
 * the second charge in the database, and hide what the consumer does.
 */
export function createLedger(file: string): void {
  const db = new DatabaseSync(file);
  db.exec(`
    pragma journal_mode = wal;
    create table ledger (row integer primary key autoincrement, order_id text not null, account text not null, cents integer not null);
    create table accounts (account text primary key, charged integer not null)`);
  db.close();
}

/** Charges an account. Both consumers do it this way, inside a transaction. */
export function charge(tx: DatabaseSync, { id, account, cents }: Order): void {
  tx.prepare('insert into ledger (order_id, account, cents) values (?, ?, ?)').run(id, account, cents);
  tx.prepare('insert into accounts values (?, ?) on conflict do update set charged = charged + excluded.charged').run(account, cents);
}

/** One charge, as the ledger has it. */
export interface Entry {
  readonly orderId: string;
  readonly account: string;
  readonly cents: number;
}

/** Reads the ledger while workers write it. */
export interface LedgerReader {
  /** Charges, and those of them that are surplus. */
  totals(): { readonly effects: number; readonly duplicated: number };
  /** All charges, in the order in which they were made. */
  entries(): Entry[];
  /** What the accounts were charged in all, in cents. */
  charged(): number;
  close(): void;
}

export function readLedger(file: string): LedgerReader {
  const db = new DatabaseSync(file, { readOnly: true, timeout: 5_000 });
  const totals = db.prepare('select count(*) as effects, count(*) - count(distinct order_id) as duplicated from ledger');
  const entries = db.prepare('select order_id as orderId, account, cents from ledger order by row');
  const charged = db.prepare('select coalesce(sum(charged), 0) as cents from accounts');
  return {
    totals: () => totals.get() as unknown as { effects: number; duplicated: number },
    entries: () => entries.all() as unknown as Entry[],
    charged: () => Number(charged.get()!['cents']),
    close: () => db.close(),
  };
}

/** The ledger compared with the producer's own list. */
export interface Audit {
  readonly effects: number;
  /** Orders without a charge. */
  readonly lost: number;
  /** Charges beyond the first of their order. */
  readonly duplicated: number;
  /** Charges for orders that nobody sent. */
  readonly unknown: number;
  /** First charges that came after the one of a later order of the same account. */
  readonly outOfOrder: number;
  /** Cents that were charged too much, and cents that were not charged. */
  readonly overcharged: number;
  readonly missing: number;
}

/** `inOrder` says for which orders the queue promised order. */
export function audit(orders: readonly Order[], entries: readonly Entry[], inOrder: (order: Order) => boolean): Audit {
  const sent = new Map(orders.map((order) => [order.id, order]));
  const charged = new Set<string>();
  const last = new Map<string, number>();
  let [duplicated, unknown, outOfOrder, overcharged] = [0, 0, 0, 0];
  for (const { orderId, cents } of entries) {
    const order = sent.get(orderId);
    if (!order) unknown++;
    else if (charged.has(orderId)) {
      duplicated++;
      overcharged += cents;
    } else {
      charged.add(orderId);
      if (!inOrder(order)) continue;
      const before = last.get(order.account) ?? 0;
      if (order.number < before) outOfOrder++;
      last.set(order.account, Math.max(before, order.number));
    }
  }
  const lost = orders.filter(({ id }) => !charged.has(id));
  const missing = lost.reduce((sum, { cents }) => sum + cents, 0);
  return { effects: entries.length, lost: lost.length, duplicated, unknown, outOfOrder, overcharged, missing };
}
