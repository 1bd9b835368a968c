import type { Message } from '../../message.ts';
import type { Kernel } from '../virtual/kernel.ts';

/** A message as the queue keeps it. */
export interface Entry {
  readonly message: Message;
  state: 'visible' | 'hidden' | 'acked' | 'dead';
  /** How often it has been handed over. */
  received: number;
  hiddenUntil: number;
}

/** One handing over. */
export interface Received {
  readonly entry: Entry;
  readonly receipt: number;
  readonly message: Message;
}

/** How long a message is hidden from others, once it is handed over. */
const visibilityMs = 5 * 60_000;

/** A queue as SQS and its like are: what is not acknowledged in time is handed over again, and now and then twice at once. */
export class Queue {
  readonly entries: Entry[];
  readonly #kernel: Kernel;
  readonly #offer: () => void;

  /** `offer` is called when there is something to receive. */
  constructor(kernel: Kernel, messages: readonly Message[], offer: () => void) {
    this.#kernel = kernel;
    this.#offer = offer;
    this.entries = messages.map(entry);
    kernel.at(0, offer);
  }

  get drained(): boolean {
    return this.entries.every(({ state }) => state === 'acked' || state === 'dead');
  }

  /** Hands over everything that can be seen now. A handler may change what it gets, so it gets its own. */
  receive(): Received[] {
    const visible = this.entries.filter(({ state }) => state === 'visible');
    for (const each of visible) {
      each.received++;
      this.#hide(each, visibilityMs);
    }
    return visible.map((each) => ({ entry: each, receipt: each.received, message: structuredClone(each.message) }));
  }

  ack(each: Entry): void {
    each.state = 'acked';
  }

  deadLetter(each: Entry): void {
    each.state = 'dead';
  }

  /** Nothing, if it has been handed over to somebody else since. */
  retry({ entry: each, receipt }: Received, afterMs: number): void {
    if (each.state === 'hidden' && each.received === receipt) this.#hide(each, afterMs);
  }

  /** Somebody has sent every message once more. */
  copy(): void {
    for (const { message } of [...this.entries]) {
      if (!message.id.endsWith('(copy)')) this.entries.push(entry({ ...message, id: `${message.id} (copy)` }));
    }
    this.#offer();
  }

  #hide(each: Entry, ms: number): void {
    each.state = 'hidden';
    const until = this.#kernel.now + ms;
    each.hiddenUntil = until;
    this.#kernel.at(until, () => {
      if (each.state !== 'hidden' || each.hiddenUntil !== until) return;
      each.state = 'visible';
      this.#offer();
    });
  }
}

function entry(message: Message): Entry {
  return { message, state: 'visible', received: 0, hiddenUntil: 0 };
}
