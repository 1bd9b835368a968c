import type { World } from '../../../src/clock.ts';
import { describeError, ReceiverError } from '../../../src/errors.ts';
import type { Answer, Ask, End, Key, Settled, TransactionalStore, Unit } from '../../../src/store.ts';
import { isConflict, isDoubtful, isLocked, type PgClient, type PgResult, sqlState } from './client.ts';
import { endTransaction, type Probe, settleDoubt, type Transaction } from './doubt.ts';
import { endTexts, impatientMs, lockedMs, untilKnown } from './leased.ts';
import { type Line, type Loan, lineOf } from './line.ts';
import { bucketOf, isAt, type Names, placeOf } from './names.ts';
import type { BoundedPool } from './pool.ts';
import { inRounds } from './rounds.ts';
import { answerOf, columnsOf, completed, keyToBytes, stateOf, type Taken, takeSql } from './rows.ts';

/** What every unit's transaction sets for itself, in milliseconds. */
export interface UnitLimits {
  readonly lockTimeoutMs: number;
  readonly statementTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** A connection that has not answered for so long is dead: the server would have cancelled the statement long before. */
  readonly silenceMs: number;
}

/** The transactional way: one transaction for a batch of messages, a savepoint for each. */
export function transactionalUnit<Client extends PgClient>(
  pool: BoundedPool<Client>,
  names: Names,
  limits: UnitLimits,
  world: World,
  ready: () => Promise<void>,
): TransactionalStore<Client>['unit'] {
  const sql = unitSql(names, limits);
  return async (work) => {
    await ready();
    const { client, giveBack } = await pool.take();
    const line = lineOf(client, world.clock, limits.silenceMs);
    const unit = new OpenUnit(client, line, sql, limits);
    let doubt: Doubt | undefined;
    let result: Awaited<ReturnType<typeof work>>;
    try {
      await unit.begin();
      result = await work(unit);
      doubt = await unit.commit();
    } catch (error) {
      await unit.rollBack();
      // Not waited for: it is of use to others only, and the transaction ends by itself when it has stood idle for too long.
      if (unit.broken && unit.transaction) endTransaction(pool, unit.transaction).catch(() => {});
      throw error;
    } finally {
      line.close();
      // Before anything is in doubt: a transaction that the COMMIT has not reached ends with its connection.
      giveBack(unit.broken);
    }
    if (doubt) await settleDoubt(pool, names, world, unit.probe, doubt.error);
    return result;
  };
}

/** A COMMIT that got no answer. */
interface Doubt {
  readonly error: unknown;
}

interface UnitSql {
  readonly begin: string;
  readonly record: string;
  readonly settle: string;
  /** Takes the guard away, which fails if it is not there, and commits. */
  commit(xid: string): string;
}

/** Ends the last message's savepoint and makes the next one's, with `between` between them. */
const nextSavepoint = (between: string): string => `release savepoint idempotent_message; ${between}savepoint idempotent_message`;
const undoSavepoint = 'rollback to savepoint idempotent_message';

function unitSql(names: Names, { statementTimeoutMs, idleTimeoutMs }: UnitLimits): UnitSql {
  const now = 'statement_timestamp()';
  return {
    begin: `begin isolation level read committed;
set local statement_timeout = ${statementTimeoutMs}; set local idle_in_transaction_session_timeout = ${idleTimeoutMs};
select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off';
savepoint idempotent_message`,
    record: takeSql(
      names,
      completed,
      `before as materialized (select current_setting('lock_timeout') as lock_timeout),
first as materialized (
  select pg_current_xact_id()::text as xid, pg_backend_pid() as pid, lock_timeout, set_config('lock_timeout', $6, true) from before
),
armed as (insert into ${names.guard} (unit, never) select xid::bigint, -1 from first on conflict do nothing)`,
    ),
    settle: `update ${names.records} r set state = e.state, result = e.result, reason = e.reason, detail = e.detail, label = e.label,
  attempts = e.attempts, lease_until = ${now}, written_at = ${now}, expires_at = ${now} + e.retain_ms * interval '1 ms',
  expires_minute = ${bucketOf(`(${now} + e.retain_ms * interval '1 ms')`)}
from unnest($1::bytea[], $2::text[], $3::smallint[], $4::float8[], $5::integer[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[])
  as e(key, token, state, retain_ms, attempts, result, reason, detail, label)
  cross join lateral (select ${placeOf(names, 'own')} from ${names.records} own where own.key = e.key and own.token = e.token limit 1) own
where ${isAt(names, 'r', 'own')}`,
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
  transaction: Transaction | undefined;
  readonly #client: Client;
  readonly #line: Line<Client>;
  readonly #sql: UnitSql;
  readonly #limits: UnitLimits;
  readonly #own = new Map<Key, Own>();
  /** Why nothing of this unit may commit. */
  #failed: Error | undefined;
  /** Nothing has been sent since the savepoint was made. */
  #fresh = true;
  /** What to set `lock_timeout` back to, where a statement of this unit has changed it. */
  #lockTimeout: string | undefined;
  #running = false;
  #ended = false;

  constructor(client: Client, line: Line<Client>, sql: UnitSql, limits: UnitLimits) {
    this.#client = client;
    this.#line = line;
    this.#sql = sql;
    this.#limits = limits;
  }

  get probe(): Probe | undefined {
    const [first] = this.#own.values();
    return this.transaction && first && { ...this.transaction, key: first.ask.key, token: first.ask.token };
  }

  async begin(): Promise<void> {
    await this.#line.send(this.#sql.begin);
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
      const answers = open.length > 0 ? await this.#take(open) : [];
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
    const loan = this.#line.lend();
    try {
      if (!this.#fresh) await this.#next();
      let result: T;
      try {
        result = await run(loan.tx);
      } catch (error) {
        if (loan.used()) await this.#undo();
        // What the one before it has left behind is not this handler's failure.
        throw this.#failed ?? error;
      } finally {
        loan.end();
      }
      if (loan.used()) {
        this.#fresh = false;
        await this.#checkAfter(loan);
      }
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
    const { rowCount } = await this.#line.send(this.#sql.settle, [
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

  /** Answers with the doubt, if the COMMIT has left one. */
  async commit(): Promise<Doubt | undefined> {
    this.#check();
    this.#ended = true;
    let results: PgResult | readonly PgResult[];
    try {
      results = await this.#line.send(this.transaction ? this.#sql.commit(this.transaction.xid) : 'commit');
    } catch (error) {
      if (!isDoubtful(error)) throw this.#failed ?? (sqlState(error) === '22012' ? this.#tornApart(error) : error);
      this.broken = new Error('A COMMIT on this connection got no answer', { cause: error });
      return { error };
    }
    const last = Array.isArray(results) ? (results.at(-1) as PgResult) : (results as PgResult);
    // A COMMIT of a transaction that is aborted rolls back, and calls that a success.
    if (last.command !== undefined && last.command !== 'COMMIT') throw this.#failed ?? this.#tornApart(undefined);
    return undefined;
  }

  async rollBack(): Promise<void> {
    this.#ended = true;
    if (this.broken) return;
    try {
      await this.#line.send('rollback');
    } catch (cause) {
      this.broken = new Error('A ROLLBACK on this connection failed', { cause });
    }
  }

  /** Keys that another transaction holds for too long must not keep the others from being handled: the batch is halved until they are alone. */
  async #take(asks: readonly Ask[], lockTimeoutMs: number = this.#limits.lockTimeoutMs): Promise<Answer[]> {
    for (let tries = 1; ; tries++) {
      if (!this.#fresh) await this.#next();
      try {
        const answers = await untilKnown(asks, async (open) => {
          const { rows } = await this.#line.send(this.#sql.record, [...columnsOf(open), `${lockTimeoutMs}`]);
          const { xid, pid, lock_timeout } = rows[0] as { xid: string; pid: number; lock_timeout: string };
          this.transaction = { xid, pid };
          this.#lockTimeout ??= lock_timeout;
          return (rows as Taken[]).map((row, i) => answerOf(open[i]!, row));
        });
        this.#fresh = false;
        return answers;
      } catch (error) {
        if (!isLocked(error) && !(isConflict(error) && tries < 3)) throw error;
        await this.#undo();
        if (isConflict(error)) continue;
        if (asks.length === 1) return [{ state: 'busy', remainingMs: lockedMs }];
        const half = asks.length >> 1;
        return [...(await this.#take(asks.slice(0, half), impatientMs)), ...(await this.#take(asks.slice(half), impatientMs))];
      }
    }
  }

  /** Where the client pipelines it is not waited for, and goes to the server with what is sent next. Handlers wait for locks as long as they like. */
  async #next(): Promise<void> {
    const restored = this.#lockTimeout === undefined ? '' : `set local lock_timeout = '${this.#lockTimeout}'; `;
    this.#lockTimeout = undefined;
    this.#fresh = true;
    const sent = this.#line.send(nextSavepoint(restored)).catch((cause: unknown) => {
      this.#failed ??= this.#tornApart(cause);
    });
    if (this.#line.pipelines) return;
    await sent;
    this.#check();
  }

  async #undo(): Promise<void> {
    try {
      await this.#line.send(undoSavepoint);
      this.#fresh = true;
    } catch (cause) {
      throw this.#tornApart(cause);
    }
  }

  /** A handler that goes on after a statement of its has failed leaves the transaction aborted, and would take all others with it. */
  async #checkAfter(loan: Loan<Client>): Promise<void> {
    let status = this.#client.getTransactionStatus?.();
    // A client that does not know has to ask, which costs a round trip; and after an error pg may know it a moment later than the handler.
    if (status === undefined || status === null || loan.failed()) {
      status = await this.#line.send('select 1').then(
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
