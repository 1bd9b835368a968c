import type { Counts } from './crew.ts';
import type { Audit } from './ledger.ts';
import { promised } from './settings.ts';

/** What is known of one side at the end. */
export interface Result extends Counts, Audit {
  readonly name: 'naive' | 'receiver';
  /** Distinct orders. */
  readonly sent: number;
  /** The orders and the copies that the producer sent of them. */
  readonly messages: number;
  /** What was still in the queues when the time was up, and what ended in the dead-letter queues. */
  readonly undelivered: number;
  readonly deadLetters: number;
  /** Cents by which the accounts differ from the ledger. */
  readonly unbalanced: number;
}

/** The last lines of the demo, one for each side. */
export function summaryLine({ name, sent, delivered, kills, effects, lost, duplicated }: Result): string {
  return `${name}: ${sent} sent, ${delivered} delivered, ${kills} kills, ${effects} effects, ${lost} lost, ${duplicated} duplicated`;
}

/** What is wrong with a run; nothing if it showed what it promises. */
export function complaints(naive: Result, receiver: Result): string[] {
  const wrong: string[] = [];
  const expect = (fine: boolean, text: string) => void (fine || wrong.push(text));
  expect(receiver.lost === 0, `the receiver lost ${receiver.lost} orders`);
  expect(receiver.duplicated === 0, `the receiver charged ${receiver.duplicated} times too often`);
  expect(receiver.outOfOrder === 0, `the receiver charged ${receiver.outOfOrder} orders of the FIFO queue out of their order`);
  expect(receiver.deadLetters === 0, `the receiver gave up ${receiver.deadLetters} messages that nothing was wrong with`);
  expect(naive.lost + naive.duplicated > 0, 'the naive consumer lost and doubled nothing, so this run has shown nothing');
  for (const side of [naive, receiver]) {
    const { name, sent, kills, stops, undelivered, unbalanced, unknown } = side;
    expect(sent >= promised.orders, `${name}: ${sent} orders were sent, and ${promised.orders} are promised`);
    expect(kills >= promised.kills, `${name}: ${kills} workers were killed, and ${promised.kills} are promised`);
    expect(stops >= promised.stops, `${name}: ${stops} workers were stopped past their lease, and ${promised.stops} are promised`);
    expect(undelivered === 0, `${name}: ${undelivered} messages were still in the queues when the time was up`);
    expect(unbalanced === 0, `${name}: the accounts differ from the ledger by ${unbalanced} cents`);
    expect(unknown === 0, `${name}: ${unknown} charges were made for orders that nobody sent`);
  }
  return wrong;
}

/** One line of a table: what, the figure of each side, and whether the figure is bad if it is not 0. */
export interface Row {
  readonly label: string;
  readonly naive: string | number;
  readonly receiver: string | number;
  readonly bad?: boolean;
}

export function finalRows(naive: Result, receiver: Result): Row[] {
  const row = (label: string, of: (side: Result) => string | number, bad?: boolean): Row => ({
    label,
    naive: of(naive),
    receiver: of(receiver),
    ...(bad && { bad }),
  });
  return [
    row('orders sent', ({ sent }) => sent),
    row('messages, with copies', ({ messages }) => messages),
    row('deliveries to workers', ({ delivered }) => delivered),
    row('duplicates stopped', ({ duplicate }) => duplicate),
    row('workers killed', ({ kills }) => kills),
    row('workers stopped past the lease', ({ stops }) => stops),
    row('handlers begun', ({ begun }) => begun),
    row('charges in the ledger', ({ effects }) => effects),
    row('orders lost', ({ lost }) => lost, true),
    row('charges too many', ({ duplicated }) => duplicated, true),
    row('charges out of order (FIFO)', ({ outOfOrder }) => outOfOrder, true),
    row('not charged', ({ missing }) => euros(missing), true),
    row('charged too much', ({ overcharged }) => euros(overcharged), true),
  ];
}

function euros(cents: number): string {
  return cents === 0 ? '0' : `${group(Math.floor(cents / 100))}.${String(cents % 100).padStart(2, '0')} €`;
}

export const columns = { label: 32, figure: 14 };

/** Aligned columns; bad figures in red and good zeros in green, where there are colours. */
export function table(rows: readonly Row[], colour: boolean): string[] {
  const cell = (figure: string | number, bad = false) => {
    const text = (typeof figure === 'number' ? group(figure) : figure).padStart(columns.figure);
    return bad ? paint(text, text.trim() === '0' ? 32 : 31, colour) : text;
  };
  const head = `  ${''.padEnd(columns.label)}${'naive'.padStart(columns.figure)}${'receiver'.padStart(columns.figure)}`;
  return [
    paint(head, 1, colour),
    ...rows.map(({ label, naive, receiver, bad }) => `  ${label.padEnd(columns.label)}${cell(naive, bad)}${cell(receiver, bad)}`),
  ];
}

/** Text in a colour of the terminal, by its ANSI code. */
export function paint(text: string, code: number, colour: boolean): string {
  return colour ? `\x1b[${code}m${text}\x1b[0m` : text;
}

/** 12345 as 12,345. */
function group(figure: number): string {
  return String(figure).replace(/\B(?=(\d{3})+$)/g, ',');
}
