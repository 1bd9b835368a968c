/**
 * Words used everywhere in this library:
 *
 * - message: what a producer sent: id, body, headers.
 * - delivery: one attempt of a broker to hand a message over, with its own acknowledgement handle.
 * - verdict: what the receiver tells the broker adapter to do with one delivery.
 */

/** What a producer sent, in the shape that every broker adapter fills in. */
export interface Message {
  /** The broker's own id: an SQS MessageId, `topic/partition/offset`. It is not the same for a producer's retry or a redrive. */
  readonly id: string;
  /** As the broker gave it: text, bytes, or a value that is decoded already. */
  readonly body: unknown;
  /** Headers (Kafka, AMQP, HTTP) or message attributes (SQS), as text. */
  readonly headers: Readonly<Record<string, string | undefined>>;
}

/** One attempt of a broker to hand over a message. */
export interface Delivery {
  readonly message: Message;
  /** Deliveries with the same ordering key run one after another, in the order given: a FIFO group, a Kafka key. Absent: no order. */
  readonly orderingKey?: string | undefined;
  /** When the producer sent it, in milliseconds since the Unix epoch, if the broker tells. */
  readonly sentAtMs?: number | undefined;
  /** True if the broker may have handed this message over before (SQS: ApproximateReceiveCount > 1). */
  readonly redelivered?: boolean | undefined;
  /** Until when, on the receiver's monotonic clock, the broker keeps this delivery from other consumers, if it does so at all. */
  readonly heldUntil?: number | undefined;
}

/** Why a delivery is to be tried again. */
export type RetryReason =
  /** The handler failed; its error is in `error`. */
  | 'failed'
  /** Another worker runs this message now. */
  | 'busy'
  /** The claim was lost while the handler ran: somebody else may own the message. */
  | 'fenced'
  /** An earlier message with the same ordering key has not succeeded. */
  | 'order'
  /** The store can't be reached, or its answer or the outcome of a write is unknown. */
  | 'store'
  /** The broker's hold or the lease ran out before the handler could be started. */
  | 'expired'
  /** The handler was still running at `handlerTimeoutMs`. */
  | 'timeout'
  /** The receiver is stopping. */
  | 'stopped'
  /** Same key with another payload, and `onMismatch` is `retry`. */
  | 'mismatch';

/** Why a delivery can't ever succeed as it is. */
export type DeadLetterReason =
  /** The body could not be decoded. */
  | 'undecodable'
  /** No valid key: missing, empty, too long, not a string, not well-formed Unicode. */
  | 'invalid-key'
  /** The schema refused the payload. */
  | 'invalid-payload'
  /** The handler threw a `TerminalError`. */
  | 'terminal'
  /** The attempts are used up, by errors or by processes that died. */
  | 'max-attempts'
  /** Older than what the store remembers, so it can't be told from a duplicate. */
  | 'too-old'
  /** Same key as a known message, with another payload. */
  | 'mismatch'
  /** The handler's result could not be encoded. */
  | 'unencodable-result'
  /** The attempts are used up, and whether a step has happened could not be found out: somebody has to look. */
  | 'unknown-outcome';

/** What the broker adapter has to do with one delivery. An adapter obeys it, and decides nothing by itself. */
export type Verdict =
  | {
      readonly action: 'ack';
      /** `duplicate`: the message had been completed before, and the handler did not run for this delivery. */
      readonly outcome: 'completed' | 'duplicate';
      /** The handler's result; for a duplicate the stored one, where `results` is on. */
      readonly result?: unknown;
    }
  | {
      readonly action: 'retry';
      readonly reason: RetryReason;
      /** How long the broker should wait before it delivers again, in milliseconds, 0 or more. */
      readonly afterMs: number;
      readonly error?: unknown;
    }
  | {
      readonly action: 'dead-letter';
      readonly reason: DeadLetterReason;
      /** For people: the error's text, never the payload. */
      readonly detail: string;
      /** How often it has been tried, this time included; 0 if it never reached the handler. */
      readonly attempts: number;
      /** What the handler threw, if this delivery's attempt was the last. */
      readonly error?: unknown;
    };

/** What a broker adapter gives to `process` beside the deliveries. All of it is optional. */
export interface Source<D extends Delivery = Delivery> {
  /**
   * What the deliveries come from, where it has to be told apart (Kafka: `topic/partition`). A store whose transactions belong to one
   * partition is given this name, and none of its transactions spans two.
   */
  readonly partition?: string | undefined;
  /**
   * Called from the receiver's heartbeat for deliveries that are waiting or running: keep them from other consumers for at
   * least `forMs` more (SQS: ChangeMessageVisibilityBatch). Answers in the order asked; `false` means that the broker has taken the
   * delivery back, and the receiver gives up its claim too. `undefined` for one, or a rejection for all, means "unknown", and is tried
   * again at the next beat.
   */
  hold?(deliveries: readonly D[], forMs: number): Promise<readonly (boolean | undefined)[]>;
  /**
   * Aborted when somebody else may have all of the source's deliveries from now on (Kafka: the membership is lost). The signals of their handlers are
   * aborted at once, and no transaction commits any more in which one of them has been handled, unless its commit is under way. A claim in the
   * store stays what it is: its token decides, so that what a handler has done in spite of its signal is recorded while nobody else has claimed it.
   */
  readonly lost?: AbortSignal | undefined;
  /**
   * Transactional mode only: called inside the transaction, last before it commits, with the verdicts that its deliveries of this source get
   * once it has. For progress that commits with the effects: Kafka's consumed offsets, a watermark. What it writes through `tx` counts only
   * if the transaction commits. If it rejects, nothing commits, and its deliveries get `retry`, for reason `fenced` if it rejects with a
   * `ReceiverError` of code `claim-lost`, else `store`. Deliveries whose verdict needs no transaction are not in `verdicts`.
   */
  committing?(tx: unknown, verdicts: ReadonlyMap<D, Verdict>): Promise<void>;
  /** Called once for each delivery as soon as its verdict is known, before `process` resolves for the batch. Must not throw. */
  settled?(delivery: D, verdict: Verdict): void;
}
