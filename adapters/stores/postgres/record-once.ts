import { expectOptions, ReceiverError, refuseOption } from '../../../src/errors.ts';
import { keyOf } from '../../../src/key.ts';
import { expectRetention, expectScope } from '../../../src/options.ts';
import { isIdle, type PgQueryable } from './client.ts';
import { parameters } from './lists.ts';
import { namesOf, type SchemaOptions } from './names.ts';
import { answerOf, columnsOf, completed, type Taken, takeSql } from './rows.ts';

/** What {@link recordOnce} is to remember. */
export interface RecordOnce extends SchemaOptions {
  /** Who handles: the name of this consumer, as in `createReceiver`. */
  readonly scope: string;
  /** What makes two messages the same, as a key strategy gives it. */
  readonly id: string | readonly string[];
  /** How long it is remembered, in milliseconds. Default: 14 days. */
  readonly retentionMs?: number;
}

/**
 * For workers that have a transaction of their own: records a message in it, and says whether it is the first of its kind. Do the work only then,
 * in the same transaction.
 *
 * ```ts
 * await client.query('begin');
 * if ((await recordOnce(client, { scope: 'billing', id: order.id })) === 'first') await client.query('insert into charges …');
 * await client.query('commit');
 * ```
 *
 * While another transaction holds the same message it waits, for the caller's `lock_timeout` at most. The key is that of a receiver with this
 * scope and id, so both may share a table. Isolation: READ COMMITTED; under the others the second of two at once fails with 40001 and is to be
 * run again.
 *
 * @throws ReceiverError `invalid-key`; `invalid-option`, also if it is known that no transaction is open; `busy` if a receiver holds a claim of it now; `parked`; what the client throws
 */
export async function recordOnce(tx: PgQueryable, options: RecordOnce): Promise<'first' | 'duplicate'> {
  if (typeof tx?.query !== 'function') refuseOption('tx', 'a transaction that is open', tx);
  expectOptions(options, '`{ scope, id }`');
  const { id } = options;
  const scope = expectScope(options.scope);
  const retentionMs = expectRetention(options.retentionMs ?? 14 * 86_400_000, 1);
  if (isIdle(tx))
    throw new ReceiverError(
      'invalid-option',
      'Expected `tx` to be a transaction that is open, got a connection or pool without one: the message would be done whatever becomes of your work',
    );
  const names = namesOf(options);
  const ask = { key: keyOf(scope, id), fingerprint: '', token: '', leaseMs: 0, retainMs: retentionMs };
  const sql = takeSql(names, completed, `${parameters(5)}, null`);
  for (let tries = 0; tries < 8; tries++) {
    const { rows } = await tx.query(sql, columnsOf([ask]));
    const answer = answerOf(ask, rows[0] as Taken);
    if (answer?.state === 'claimed') return 'first';
    if (answer?.state === 'completed') return 'duplicate';
    if (answer?.state === 'busy')
      throw new ReceiverError('busy', `A receiver holds ${JSON.stringify(id)} now`, { retryAfterMs: answer.remainingMs });
    if (answer?.state === 'parked')
      throw new ReceiverError('parked', `${JSON.stringify(id)} was given up (${answer.reason}): ${answer.detail}`);
    if (answer) throw new ReceiverError('store', `The record of ${JSON.stringify(id)} can't be used: ${JSON.stringify(answer)}`);
  }
  throw new ReceiverError('store', `Expected to see what holds ${JSON.stringify(id)}, but it changes all the time`);
}
