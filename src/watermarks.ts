/**
 * How far one partition of a broker has been handled, by a name that the broker's adapter makes: everything below `next`, and the ranges of
 * offsets in `done` (text of the adapter, empty in the usual case).
 */
export interface Watermark {
  readonly next: number;
  readonly done: string;
}

/**
 * One row for each partition, written in the transaction of the effects. Every method works inside the transaction `tx` and neither begins nor
 * commits one. Its contract:
 *
 * 40. `take` makes `owner` the only one who can advance the row, and answers what is in it; undefined if it has never been advanced. Once its
 *     transaction has committed, none of an earlier owner commits an advance.
 * 41. `advance` without `from` never goes back: `next` becomes the greater of what is there and `to.next`, and `done` is emptied.
 * 42. `advance` with `from` writes `to` if the row is exactly `from`, `null` meaning a row that has never been advanced (compare-and-set).
 * 43. `advance` answers false, and changes nothing, if `owner` is not the owner or the row is not `from`.
 * 44. `read` answers as `take` does, or `'lost'` if `owner` is not the owner, and changes nothing.
 */
export interface Watermarks<Tx> {
  take(tx: Tx, name: string, owner: string): Promise<Watermark | undefined>;
  read(tx: Tx, name: string, owner: string): Promise<Watermark | undefined | 'lost'>;
  advance(tx: Tx, name: string, owner: string, to: Watermark, from?: Watermark | null): Promise<boolean>;
}
