import { ReceiverError } from '../../../src/errors.ts';

/** What the store needs of anything that runs SQL: a pg `Client`, `PoolClient` or `Pool`. */
export interface PgQueryable {
  query(text: string, values?: readonly unknown[]): Promise<PgResult>;
}

/** What a query answers. */
export interface PgResult {
  readonly rows: readonly any[];
  readonly rowCount?: number | null;
  /** The command that ran: `COMMIT`, or `ROLLBACK` where a COMMIT found the transaction aborted. */
  readonly command?: string;
}

/** A connection that is taken from a pool. */
export interface PgClient extends PgQueryable {
  /** Gives it back; with an error it is thrown away. */
  release(error?: Error | boolean): void;
  end?(): unknown;
  /** `I` outside of a transaction, `T` inside, `E` inside of one that is aborted. pg has it since 8.17. */
  getTransactionStatus?(): string | null;
  /** A connection that breaks tells so, and ends the process if nobody listens. */
  on?(event: 'error', listener: (error: Error) => void): unknown;
  off?(event: 'error', listener: (error: Error) => void): unknown;
}

/** A pg `Pool`, or anything like it. */
export interface PgPool<Client extends PgClient = PgClient> extends PgQueryable {
  connect(): Promise<Client>;
  // Again, because TypeScript infers from the last signatures back, and pg's last one, for callbacks, says nothing of `Client`.
  connect(): Promise<Client>;
  on?(event: 'connect', listener: (client: Client) => void): unknown;
  readonly options?: { readonly max?: number | undefined };
}

/** Whether it is known that no transaction is open. */
export function isIdle(tx: object): boolean {
  const { getTransactionStatus } = tx as Partial<PgClient>;
  return 'totalCount' in tx || (typeof getTransactionStatus === 'function' && getTransactionStatus.call(tx) === 'I');
}

/** The SQLSTATE of an error that the server answered. */
export function sqlState(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

/** The server has undone the statement because of what others did at the same time: it may be sent again. */
export function isConflict(error: unknown): boolean {
  const state = sqlState(error);
  return state === '40001' || state === '40P01';
}

/**
 * Whether an answer to COMMIT leaves its outcome open: none at all, a broken connection (08), a server that ends (57P), or one that says
 * itself that it does not know (40003).
 */
export function isDoubtful(error: unknown): boolean {
  const state = sqlState(error);
  return state === undefined || state.startsWith('08') || state.startsWith('57P') || state === '40003';
}

/** `part`, or an error if it is not a plain name. Names are quoted all the same. */
export function identifier(option: string, part: string): string {
  if (typeof part === 'string' && /^[A-Za-z_][A-Za-z0-9_$]{0,62}$/.test(part)) return `"${part}"`;
  throw new ReceiverError(
    'invalid-option',
    `Expected \`${option}\` to be letters, digits, _ and $, at most 63 and no digit first, got ${JSON.stringify(part)}`,
  );
}
