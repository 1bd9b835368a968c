import type { World } from '../../../src/clock.ts';
import { describeError, ReceiverError } from '../../../src/errors.ts';
import type { Answer, Ask, End, Key, Settled, TransactionalStore, Unit } from '../../../src/store.ts';
import { isConflict, isDoubtful, isLocked, type PgClient, type PgPool, type PgResult, sqlState } from './client.ts';
import { type Probe, settleDoubt } from './doubt.ts';
import { endTexts, impatientMs, lockedMs, untilKnown } from './leased.ts';
import { inRounds } from './rounds.ts';
import { answerOf, columnsOf, completed, keyToBytes, stateOf, type Taken, takeSql } from './rows.ts';
import { bucketOf, type Names } from './schema.ts';
import { type Watch, watchErrors } from './watch-errors.ts';

/** What every unit's transaction sets for itself, in milliseconds. */
export interface UnitLimits {
  readonly lockTimeoutMs: number;
  readonly statementTimeoutMs: number;
  readonly idleTimeoutMs: number;
}

/** The transactional way: one transaction for a batch of messages, a savepoint for each. */
export function transactionalUnit<Client extends PgClient>(
  pool: PgPool<Client>,
  names: Names,
  limits: UnitLimits,
  world: World,
  ready: () => Promise<void>,
): TransactionalStore<Client>['unit'] {
  const sql = unitSql(names, limits);
  return async (work) => {
    await ready();
    const client = await pool.connect();
    const unit = new OpenUnit(client, sql);
    // What breaks the connection is told by the statement that meets it.
    const ignore = () => {};
    client.on?.('error', ignore);
    let given = false;
    const giveBack = () => {
      if (given) return;
      given = true;
      unit.unwatch();
      client.off?.('error', ignore);
      client.release(unit.broken);
    };
    try {
      await unit.begin();
      const result = await work(unit);
      await unit.commit((error) => {
        // A transaction that the COMMIT has not reached ends with its connection.
        giveBack();
        return settleDoubt(pool, names, world, unit.probe, error);
      });
      return result;
    } catch (error) {
      await unit.rollBack();
      throw error;
    } finally {
      giveBack();
    }
  };
}

interface UnitSql {
  readonly begin: string;
  readonly record: string;
  /** The same, hardly waiting for locks, and what takes that back. */
  readonly recordImpatiently: string;
  readonly patience: string;
  readonly settle: string;
  /** Takes the guard away, which fails if it is not there, and commits. */
  commit(xid: string): string;
}

/** Ends the last message's savepoint and makes the next one's. */
const nextSavepoint = 'release savepoint idempotent_message; savepoint idempotent_message';
const undoSavepoint = 'rollback to savepoint idempotent_message';

function unitSql(names: Names, { lockTimeoutMs, statementTimeoutMs, idleTimeoutMs }: UnitLimits): UnitSql {
  const now = 'statement_timestamp()';
  const self = 'pg_current_xact_id()::text as xid, pg_backend_pid() as pid';
  const armed = `armed as (insert into ${names.guard} (unit, never) select xid::bigint, -1 from first on conflict do nothing)`;
  return {
    begin: `begin isolation level read committed;
set local lock_timeout = ${lockTimeoutMs}; set local statement_timeout = ${statementTimeoutMs};
set local idle_in_transaction_session_timeout = ${idleTimeoutMs};
select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off';
savepoint idempotent_message`,
    record: takeSql(names, completed, `first as materialized (select ${self}),\n${armed}`),
    recordImpatiently: takeSql(
      names,
      completed,
      `first as materialized (select ${self}, set_config('lock_timeout', '${impatientMs}', true)),\n${armed}`,
    ),
    patience: `set local lock_timeout = ${lockTimeoutMs}`,
    settle: `update ${names.records} r set state = e.state, result = e.result, reason = e.reason, detail = e.detail, label = e.label,
  attempts = e.attempts, lease_until = ${now}, written_at = ${now}, expires_at = ${now} + e.retain_ms * interval '1 ms',
  expires_minute = ${bucketOf(`(${now} + e.retain_ms * interval '1 ms')`)}
from unnest($1::bytea[], $2::text[], $3::smallint[], $4::float8[], $5::integer[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[])
  as e(key, token, state, retain_ms, attempts, result, reason, detail, label)
where r.key = e.key and r.token = e.token`,
    commit: (xid) =>
      `with gone as (delete from ${names.guard} where unit = ${BigInt(xid)} returning unit) select 1 / count(*) from gone; commit`,
  };
}

/** What a unit has recorded of a key. */
interface Own {
  readonly ask: Ask;
  readonly answer: Extract<Answer, { state: 'claimed' }>;
  as: End['as'];
}

class OpenUnit<Client extends PgClient> implements Unit<Client> {
  /** Why the connection can't be used again. */
  broken: Error | undefined;
  readonly #client: Client;
  readonly #watch: Watch;
  readonly #sql: UnitSql;
  readonly #own = new Map<Key, Own>();
  #transaction: Pick<Probe, 'xid' | 'pid'> | undefined;
  /** Why nothing of this unit may commit. */
  #failed: Error | undefined;
  /** The savepoint is new: nothing has been written since. */
  #fresh = true;
  #running = false;
  #ended = false;

  constructor(client: Client, sql: UnitSql) {
    this.#client = client;
    this.#watch = watchErrors(client);
    this.#sql = sql;
  }

  get probe(): Probe | undefined {
    const [first] = this.#own.values();
    return this.#transaction && first && { ...this.#transaction, key: first.ask.key, token: first.ask.token };
  }

  /** The connection is as it was given. */
  unwatch(): void {
    this.#watch.end();
  }

  async begin(): Promise<void> {
    await this.#watch.query(this.#sql.begin);
  }

  async record(asks: readonly Ask[]): Promise<Answer[]> {
    this.#check();
    return inRounds(asks, async (round) => {
      const known = new Map<Ask, Answer>();
      for (const ask of round) {
        const mine = this.#own.get(ask.key);
        const answer = mine && answerOfOwn(mine, ask);
        if (answer) known.set(ask, answer);
      }
      const open = round.filter((ask) => !known.has(ask));
      const answers = open.length > 0 ? await this.#take(open, this.#sql.record) : [];
      for (const [i, ask] of open.entries()) {
        const answer = answers[i]!;
        known.set(ask, answer);
        if (answer.state === 'claimed') this.#own.set(ask.key, { ask, answer, as: 'completed' });
      }
      return round.map((ask) => known.get(ask)!);
    });
  }

  async savepoint<T>(run: (tx: Client) => Promise<T>): Promise<T> {
    this.#check();
    if (this.#running) throw new ReceiverError('store', 'Expected one savepoint after another, got two at once');
    this.#running = true;
    try {
      this.#next();
      this.#fresh = false;
      this.#watch.takeErrors();
      let result: T;
      try {
        result = await run(this.#client);
      } catch (error) {
        await this.#undo();
        throw error;
      }
      await this.#checkAfter();
      return result;
    } finally {
      this.#running = false;
    }
  }

  async settle(ends: readonly End[]): Promise<Settled[]> {
    this.#check();
    const changes = new Map<Key, { readonly end: End; readonly mine: Own }>();
    const answers = ends.map((end): Settled => {
      const mine = this.#own.get(end.key);
      if (mine?.ask.token !== end.token) return 'fenced';
      mine.as = end.as;
      changes.set(end.key, { end, mine });
      return 'ok';
    });
    if (changes.size === 0) return answers;
    const list = [...changes.values()].sort((a, b) => (a.end.key < b.end.key ? -1 : 1));
    const changed = list.map(({ end }) => end);
    const { rowCount } = await this.#watch.query(this.#sql.settle, [
      changed.map(({ key }) => keyToBytes(key)),
      changed.map(({ token }) => token),
      changed.map((end) => stateOf(end.as)),
      changed.map(({ retainMs }) => retainMs),
      list.map(({ end, mine }) => mine.answer.attempt - (end.as === 'released' && !end.counted ? 1 : 0)),
      ...endTexts(changed),
    ]);
    if (rowCount !== list.length) throw this.#fail(`Expected to settle ${list.length} records of this unit, got ${rowCount}`);
    return answers;
  }

  /** `doubt` finds out what has become of a COMMIT without an answer. */
  async commit(doubt: (error: unknown) => Promise<void>): Promise<void> {
    this.#check();
    this.#ended = true;
    let results: PgResult | readonly PgResult[];
    try {
      results = await this.#watch.query(this.#transaction ? this.#sql.commit(this.#transaction.xid) : 'commit');
    } catch (error) {
      if (!isDoubtful(error)) throw this.#failed ?? (sqlState(error) === '22012' ? this.#tornApart(error) : error);
      this.broken = new Error('A COMMIT on this connection got no answer', { cause: error });
      return doubt(error);
    }
    const last = Array.isArray(results) ? (results.at(-1) as PgResult) : (results as PgResult);
    // A COMMIT of a transaction that is aborted rolls back, and calls that a success.
    if (last.command !== undefined && last.command !== 'COMMIT') throw this.#failed ?? this.#tornApart(undefined);
  }

  async rollBack(): Promise<void> {
    this.#ended = true;
    if (this.broken) return;
    try {
      await this.#watch.query('rollback');
    } catch (cause) {
      this.broken = new Error('A ROLLBACK on this connection failed', { cause });
    }
  }

  /** Keys that another transaction holds for too long must not keep the others from being handled: the batch is halved until they are alone. */
  async #take(asks: readonly Ask[], sql: string): Promise<Answer[]> {
    for (let tries = 1; ; tries++) {
      if (!this.#fresh) this.#next();
      try {
        const answers = await untilKnown(asks, async (open) => {
          const { rows } = await this.#watch.query(sql, columnsOf(open));
          const { xid, pid } = rows[0] as { xid: string; pid: number };
          this.#transaction = { xid, pid };
          return (rows as Taken[]).map((row, i) => answerOf(open[i]!, row));
        });
        this.#fresh = false;
        return answers;
      } catch (error) {
        if (!isLocked(error) && !(isConflict(error) && tries < 3)) throw error;
        await this.#undo();
        this.#fresh = true;
        if (isConflict(error)) continue;
        if (asks.length === 1) return [{ state: 'busy', remainingMs: lockedMs }];
        const half = asks.length >> 1;
        const { recordImpatiently, patience } = this.#sql;
        const answers = [
          ...(await this.#take(asks.slice(0, half), recordImpatiently)),
          ...(await this.#take(asks.slice(half), recordImpatiently)),
        ];
        if (sql !== recordImpatiently) await this.#watch.query(patience);
        return answers;
      }
    }
  }

  /** Not waited for: it goes to the server before whatever is sent next, and with it where the client pipelines. */
  #next(): void {
    this.#watch.query(nextSavepoint).catch((cause: unknown) => {
      this.#failed ??= this.#tornApart(cause);
    });
  }

  async #undo(): Promise<void> {
    try {
      await this.#watch.query(undoSavepoint);
    } catch (cause) {
      throw this.#tornApart(cause);
    }
  }

  /** A handler that goes on after a statement of its has failed leaves the transaction aborted, and would take all others with it. */
  async #checkAfter(): Promise<void> {
    let status = this.#client.getTransactionStatus?.();
    // A client that does not know has to ask, which costs a round trip; and after an error pg may know it a moment later than the handler.
    if (status === undefined || status === null || this.#watch.takeErrors()) {
      status = await this.#watch.query('select 1').then(
        () => 'T',
        (error: unknown) => (sqlState(error) === '25P02' ? 'E' : Promise.reject(error)),
      );
    }
    if (status === 'T') return;
    if (status === 'I') throw this.#tornApart(undefined);
    await this.#undo();
    throw new ReceiverError(
      'aborted-transaction',
      'A statement of the handler failed, and the handler went on: nothing that it wrote in the transaction could have been committed',
    );
  }

  /** The transaction is not the one that was begun: nothing of it may be taken for done. */
  #tornApart(cause: unknown): ReceiverError {
    const why = cause === undefined ? '' : `: ${describeError(cause)}`;
    return this.#fail(
      `Expected the unit's transaction to stay open, but a handler ended it on \`tx\`, or the connection broke${why}`,
      cause,
    );
  }

  #fail(message: string, cause?: unknown): ReceiverError {
    const failed = new ReceiverError('store', message, cause === undefined ? undefined : { cause });
    this.#failed ??= failed;
    return failed;
  }

  #check(): void {
    if (this.#ended)
      throw new ReceiverError('store', 'Expected the unit to be open, but it has ended: a handler did not wait for all it started');
    if (this.#failed) throw this.#failed;
  }
}

/** The answer of a key that this unit has recorded before; undefined where it may be taken again. */
function answerOfOwn({ ask: mine, answer, as }: Own, ask: Ask): Answer | undefined {
  if (as !== 'completed') return undefined;
  if (mine.fingerprint !== '' && ask.fingerprint !== '' && mine.fingerprint !== ask.fingerprint) return { state: 'mismatch' };
  // Completed so far, but its handler may still fail: busy to all but its own token.
  return mine.token === ask.token ? answer : { state: 'busy', remainingMs: 0 };
}
