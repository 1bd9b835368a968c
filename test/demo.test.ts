import { describe, expect, test } from 'vitest';
import { audit, type Entry } from '../examples/demo/ledger.ts';
import type { Order } from '../examples/demo/order.ts';
import { complaints, finalRows, type Result, summaryLine, table } from '../examples/demo/report.ts';
import { promised } from '../examples/demo/settings.ts';
import { type Glance, type Scene, sceneLines, startView } from '../examples/demo/view.ts';

// The demo judges the receiver, so its judge is tried here on ledgers made by hand. The demo itself is run by .ci/run.

const orders: Order[] = [1, 2, 3, 4].map((number) => ({ id: `order-${number}`, account: 'a', number, cents: number * 100 }));
const entry = (number: number): Entry => ({ orderId: `order-${number}`, account: 'a', cents: number * 100 });
const auditOf = (...numbers: number[]) => audit(orders, numbers.map(entry), () => true);

describe('the audit', () => {
  const perfect = { effects: 4, lost: 0, duplicated: 0, unknown: 0, outOfOrder: 0, overcharged: 0, missing: 0 };

  test('finds nothing wrong with every order charged once, in order', () => expect(auditOf(1, 2, 3, 4)).toEqual(perfect));

  test('counts orders without a charge as lost', () => expect(auditOf(1, 4)).toEqual({ ...perfect, effects: 2, lost: 2, missing: 500 }));

  test('counts each charge beyond the first as duplicated', () =>
    expect(auditOf(1, 2, 3, 4, 2, 2, 4)).toEqual({ ...perfect, effects: 7, duplicated: 3, overcharged: 800 }));

  test('does not let a duplicate make up for a loss', () =>
    expect(auditOf(1, 2, 3, 3)).toEqual({ ...perfect, lost: 1, missing: 400, duplicated: 1, overcharged: 300 }));

  test('counts first charges behind a later order of their account, where order was promised', () => {
    expect(auditOf(1, 3, 2, 4).outOfOrder).toBe(1);
    expect(auditOf(4, 1, 2, 3).outOfOrder).toBe(3);
    // A late duplicate is a duplicate, not a matter of order.
    expect(auditOf(1, 2, 3, 4, 1).outOfOrder).toBe(0);
    expect(audit(orders, [entry(2), entry(1)], () => false).outOfOrder).toBe(0);
  });

  test('counts charges that belong to no order', () => expect(auditOf(1, 2, 3, 4, 9)).toEqual({ ...perfect, effects: 5, unknown: 1 }));
});

const receiver: Result = {
  ...{
    name: 'receiver',
    sent: 2_000,
    messages: 2_800,
    delivered: 3_600,
    begun: 2_060,
    checking: 200,
    duplicate: 900,
    kills: 32,
    stops: 16,
  },
  ...{ effects: 2_000, lost: 0, duplicated: 0, unknown: 0, outOfOrder: 0, overcharged: 0, missing: 0 },
  ...{ undelivered: 0, deadLetters: 0, unbalanced: 0 },
};
const naive: Result = { ...receiver, name: 'naive', effects: 1_994, lost: 9, duplicated: 3, overcharged: 1_234_567, missing: 5 };

test('the last lines have the form that tools read', () => {
  expect(summaryLine(naive)).toBe('naive: 2000 sent, 3600 delivered, 32 kills, 1994 effects, 9 lost, 3 duplicated');
  expect(summaryLine(receiver)).toBe('receiver: 2000 sent, 3600 delivered, 32 kills, 2000 effects, 0 lost, 0 duplicated');
});

describe('the verdict', () => {
  test('is silent about a run that shows what it promises', () => {
    expect(complaints(naive, receiver)).toEqual([]);
    expect(complaints({ ...naive, lost: 0 }, receiver)).toEqual([]);
    expect(complaints({ ...naive, duplicated: 0 }, receiver)).toEqual([]);
  });

  test.each<[string, Partial<Result>, Partial<Result>]>([
    ['the receiver lost 1 orders', {}, { lost: 1 }],
    ['the receiver charged 1 times too often', {}, { duplicated: 1 }],
    ['the receiver charged 2 orders of the FIFO queue out of their order', {}, { outOfOrder: 2 }],
    ['the receiver gave up 1 messages that nothing was wrong with', {}, { deadLetters: 1 }],
    ['the naive consumer lost and doubled nothing, so this run has shown nothing', { lost: 0, duplicated: 0 }, {}],
    [`naive: 1999 orders were sent, and ${promised.orders} are promised`, { sent: 1_999 }, {}],
    [`naive: 29 workers were killed, and ${promised.kills} are promised`, { kills: 29 }, {}],
    [`receiver: 29 workers were killed, and ${promised.kills} are promised`, {}, { kills: 29 }],
    [`receiver: 14 workers were stopped past their lease, and ${promised.stops} are promised`, {}, { stops: 14 }],
    ['receiver: 7 messages were still in the queues when the time was up', {}, { undelivered: 7 }],
    ['receiver: the accounts differ from the ledger by 3 cents', {}, { unbalanced: 3 }],
    ['receiver: 1 charges were made for orders that nobody sent', {}, { unknown: 1 }],
  ])('%s', (complaint, ofNaive, ofReceiver) =>
    expect(complaints({ ...naive, ...ofNaive }, { ...receiver, ...ofReceiver })).toEqual([complaint]),
  );
});

test('the table shows both sides beside each other', () => {
  const lines = table(finalRows(naive, receiver), false);
  expect(lines[0]).toBe('                                           naive      receiver');
  expect(lines).toContain('  orders lost                                  9             0');
  expect(lines).toContain('  charged too much                   12,345.67 €             0');
  expect(new Set(lines.map((line) => line.length)).size).toBe(1);
});

describe('the view', () => {
  const glance: Glance = { ...receiver, inQueues: 12, states: ['working', 'stopped', 'dead', 'starting'], effects: 1_000, duplicated: 3 };
  const scene: Scene = {
    seconds: 12.34,
    phase: 'chaos',
    sent: 1_100,
    naive: glance,
    receiver: { ...glance, effects: 1_090, duplicated: 0 },
  };

  test('counts what is not charged yet by orders, not by charges', () =>
    expect(sceneLines(scene, false)).toContain('  orders not charged (yet)                   103            10'));

  test('shows every worker', () =>
    expect(sceneLines(scene, false)).toContain('  workers                                ● ‖ ✗ ○       ● ‖ ✗ ○'));

  test('is drawn over itself in a terminal, and is plain lines elsewhere', () => {
    const written = (isTTY: boolean) => {
      let text = '';
      startView({ isTTY, columns: 80, write: (part) => (text += part) }, false, () => scene).stop();
      return text;
    };
    expect(written(true)).toMatch(new RegExp(`\\x1b\\[${sceneLines(scene, false).length}A\\x1b\\[J\\x1b\\[\\?25h$`));
    expect(written(false)).not.toContain('\x1b');
    expect(written(false)).toContain('receiver  3600 delivered, 1090 charged of 1100, 0 twice, 900 duplicates stopped, 32 kills, 16 stops');
  });
});
