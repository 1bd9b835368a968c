import { digest } from '../digest.ts';
import { ReceiverError } from '../errors.ts';
import type { Key } from '../store.ts';
import type { Outbox, OutboxMessage } from './outbox.ts';

/** What a handler gets where its receiver has an outbox. */
export interface PublishContext<Name extends string> {
  /**
   * Publishes messages if the handler's transaction commits. The id of each is derived from the message that is handled and from its place among
   * those published to the destination, so that a handler that runs again publishes the same ids. If one fails, so does the handler, whether it
   * has waited for it or not. See {@link Outbox}.
   */
  publish(destination: Name, message: OutboxMessage | readonly OutboxMessage[]): Promise<void>;
}

/** What one run of a handler publishes. */
export class Publishing {
  readonly #outbox: Outbox<unknown>;
  readonly #tx: unknown;
  readonly #key: Key;
  readonly #published = new Map<string, number>();
  readonly #underWay = new Set<Promise<void>>();
  #failed: { readonly error: unknown } | undefined;
  #ended = false;

  constructor(outbox: Outbox<unknown>, tx: unknown, key: Key) {
    this.#outbox = outbox;
    this.#tx = tx;
    this.#key = key;
  }

  readonly publish = (destination: string, given: OutboxMessage | readonly OutboxMessage[]): Promise<void> => {
    const publishing = this.#publish(destination, Array.isArray(given) ? given : [given]);
    this.#underWay.add(publishing);
    const done = () => this.#underWay.delete(publishing);
    publishing.then(done, (error: unknown) => {
      this.#failed ??= { error };
      done();
    });
    return publishing;
  };

  async #publish(destination: string, messages: readonly OutboxMessage[]): Promise<void> {
    if (this.#ended) throw new ReceiverError('invalid-message', `A message for ${destination} was published after its handler had ended`);
    const first = this.#published.get(destination) ?? 0;
    this.#published.set(destination, first + messages.length);
    const withId = (message: OutboxMessage, i: number) => ({
      ...message,
      id: message?.id ?? digest(['published', this.#key, destination, String(first + i)], 32),
    });
    await this.#outbox.publish(this.#tx, destination, messages.map(withId));
  }

  /** The handler has ended: waits for what it has not waited for. */
  async end(failed: boolean): Promise<void> {
    this.#ended = true;
    await Promise.allSettled(this.#underWay);
    if (this.#failed && !failed) throw this.#failed.error;
  }
}
