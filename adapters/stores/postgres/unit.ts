import type { World } from '../../../src/clock.ts';
import { describeError, ReceiverError } from '../../../src/errors.ts';
import type { Answer, Ask, End, Key, Settled, TransactionalStore, Unit } from '../../../src/store.ts';
import { isDoubtful, type PgClient, type PgResult, sqlState } from './client.ts';
import { endTransaction, type Probe, settleDoubt, type Transaction } from './doubt.ts';
import { durableSql, endColumns, halved, uncounted, untilKnown } from './leased.ts';
import { type Line, type Loan, lineOf } from './line.ts';
import { inText } from './lists.ts';
import type { Names } from './names.ts';
import type { BoundedPool } from './pool.ts';
import { inRounds } from './rounds.ts';
import { columnsOf, completed, type Taken, takeSql } from './rows.ts';

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

/** The parts of what a unit sends. */
interface UnitSql {
  /** Begins, answers the {@link Transaction}, and puts up the guard: a cursor that a commit has to run to its end, which fails. */
  readonly begin: string;
  record(asks: readonly Ask[], lockTimeoutMs: number): string;
  amend(ends: readonly Amended[]): string;
  /** Takes the guard away, which fails if it is not there, and commits. */
  readonly commit: string;
}

const newSavepoint = 'savepoint idempotent_message';
/** Ends the last message's savepoint and makes the next one's. */
const nextSavepoint = `release ${newSavepoint}; ${newSavepoint}`;
const undoSavepoint = `rollback to ${newSavepoint}`;

function unitSql(names: Names, { statementTimeoutMs, idleTimeoutMs }: UnitLimits): UnitSql {
  const { schema } = names;
  const set = (name: string, value: string) => `set_config('${name}', ${value}, true)`;
  return {
    begin: `begin isolation level read committed;
select pg_current_xact_id()::text as xid, pg_backend_pid() as pid,
  ${set('statement_timeout', `'${statementTimeoutMs}'`)}, ${set('idle_in_transaction_session_timeout', `'${idleTimeoutMs}'`)},
  ${set('synchronous_commit', durableSql)};
declare idempotent_guard no scroll cursor with hold for select ${schema}.refuse_commit()`,
    record: (asks, lockTimeoutMs) => takeSql(names, completed, inText([...columnsOf(asks), `${lockTimeoutMs}`])),
    amend: (ends) => `select ${schema}.amend(${inText(endColumns(ends, ({ attempts }) => attempts))})`,
    commit: 'close idempotent_guard; commit',
  };
}

/** How a unit's own record ends, and what its attempts become. */
type Amended = End & { readonly attempts: number };

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
  crowded = false;
  readonly #client: Client;
  readonly #line: Line<Client>;
  readonly #sql: UnitSql;
  readonly #limits: UnitLimits;
  readonly #own = new Map<Key, Own>();
  /** Why nothing of this unit may commit. */
  #failed: Error | undefined;
  /** Goes along with whatever is sent next. */
  #unsent: string;
  /** Whether there is a savepoint, and whether something has been sent since. */
  #savepoint: 'none' | 'fresh' | 'used' = 'none';
  #running = false;
  #ended = false;

  constructor(client: Client, line: Line<Client>, sql: UnitSql, limits: UnitLimits) {
    this.#client = client;
    this.#line = line;
    this.#sql = sql;
    this.#limits = limits;
    this.#unsent = `${sql.begin}; `;
  }

  /** A completed record, if there is one: any other may have been taken by somebody else since the commit. */
  get probe(): Probe | undefined {
    const all = [...this.#own.values()];
    const own = all.find(({ as }) => as === 'completed') ?? all[0];
    return this.transaction && own && { ...this.transaction, key: own.ask.key, token: own.ask.token };
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
      const answers = await untilKnown(open, (some) =>
        halved(some, this.#limits.lockTimeoutMs, (asked, patienceMs) => this.#take(asked, patienceMs)),
      );
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
      if (this.#unsent !== '' || this.#savepoint !== 'fresh') await this.#next();
      let result: T;
      try {
        result = await run(loan.tx);
      } catch (error) {
        if (loan.used()) await this.#undo();
        // What the one before it has left behind is not this handler's failure.
        throw this.#failed ?? error;
      } finally {
        loan.end();
        this.crowded = loan.crowded();
      }
      if (loan.used()) {
        this.#savepoint = 'used';
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
    const changed = [...changes.values()].map(({ end, mine }) => ({ ...end, attempts: mine.answer.attempt - uncounted(end) }));
    this.#unsent += `${this.#sql.amend(changed)}; `;
    return answers;
  }

  /** Answers with the doubt, if the COMMIT has left one. */
  async commit(): Promise<Doubt | undefined> {
    this.#check();
    this.#ended = true;
    let results: readonly PgResult[];
    try {
      results = await this.#send(this.#sql.commit);
    } catch (error) {
      if (!isDoubtful(error)) throw this.#failed ?? (sqlState(error) === '34000' ? this.#tornApart(error) : error);
      this.broken = new Error('A COMMIT on this connection got no answer', { cause: error });
      return { error };
    }
    const command = results.at(-1)!.command;
    // A COMMIT of a transaction that is aborted rolls back, and calls that a success.
    if (command !== undefined && command !== 'COMMIT') throw this.#failed ?? this.#tornApart(undefined);
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

  /** What was to go along is sent first. Answers what each statement does. */
  async #send(text: string): Promise<readonly PgResult[]> {
    const unsent = this.#unsent;
    this.#unsent = '';
    const results: PgResult | readonly PgResult[] = await this.#line.send(unsent + text);
    if (!Array.isArray(results)) throw this.#fail('Expected an array of results for several statements, as pg answers');
    // The first one has begun.
    this.transaction ??= results[1].rows[0] as Transaction;
    return results;
  }

  async #take(asks: readonly Ask[], lockTimeoutMs: number): Promise<readonly Taken[]> {
    const results = await this.#send(`${this.#sql.record(asks, lockTimeoutMs)}; ${this.#renew()}`).catch((error: unknown) => {
      // The transaction is aborted, or was not even begun.
      this.#failed ??= error as Error;
      throw error;
    });
    const { rows } = results.findLast(({ command }) => command === 'SELECT')!;
    return rows as readonly Taken[];
  }

  /** Whatever was written so far is undone no more by what fails next. */
  #renew(): string {
    const text = this.#savepoint === 'none' ? newSavepoint : nextSavepoint;
    this.#savepoint = 'fresh';
    return text;
  }

  /** Where the client pipelines it is not waited for, and goes to the server with what is sent next; but nothing may be sent that has no transaction. */
  async #next(): Promise<void> {
    const sent = this.#send(this.#renew()).catch((cause: unknown) => {
      this.#failed ??= this.#tornApart(cause);
    });
    if (this.#line.pipelines && this.transaction) return;
    await sent;
    this.#check();
  }

  async #undo(): Promise<void> {
    try {
      await this.#line.send(undoSavepoint);
      this.#savepoint = 'fresh';
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
