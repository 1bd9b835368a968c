import type { Clock } from '../../../src/clock.ts';
import type { KafkaDelivery } from './delivery.ts';

/**
 * Messages of one partition that wait for their turn. Those with the same ordering key are a lane: they go in the order of their offsets, and
 * none goes while an earlier one is being handled elsewhere or waits for its next try. Those without a key wait for nobody.
 */
export interface Lanes {
  /** Adds messages with greater offsets than all before. */
  add(deliveries: readonly KafkaDelivery[]): void;
  /** The next messages that may go, up to `limit`, in the order of their offsets. Several of one lane go together. */
  take(limit: number, isWanted: (delivery: KafkaDelivery) => boolean): KafkaDelivery[];
  /** The message has ended. */
  done(delivery: KafkaDelivery): void;
  /** The message is to go again, not before `afterMs` have passed; those behind it in its lane wait. */
  giveBack(delivery: KafkaDelivery, afterMs: number): void;
  /** Whether there is a message that may go now. */
  isReady(): boolean;
  /** The lowest offset that may go now. */
  first(): number | undefined;
  /** Leaves no timer behind. */
  stop(): void;
}

interface Lane {
  readonly name: string | undefined;
  /** Given out and not answered for. */
  out: number;
  /** Waiting behind those that are out, or for the time of the next try. */
  held: KafkaDelivery[];
  /** Until when the lane waits, on the monotonic clock. */
  until: number;
  cancel: (() => void) | undefined;
  /** The `take` in which its messages went last. */
  taken: number;
}

export function lanes(clock: Clock, wake: () => void): Lanes {
  /** In the order of their offsets. What turns out to be behind a lane that waits is moved to it. */
  let ready: KafkaDelivery[] = [];
  let freed: KafkaDelivery[] = [];
  const named = new Map<string, Lane>();
  const lone = new Map<number, Lane>();
  let takes = 0;
  let stopped = false;

  const newLane = (name: string | undefined): Lane => ({ name, out: 0, held: [], until: 0, cancel: undefined, taken: 0 });

  function laneOf({ orderingKey, offset }: KafkaDelivery): Lane {
    const lane = orderingKey === undefined ? lone.get(offset) : named.get(orderingKey);
    if (lane) return lane;
    const made = newLane(orderingKey);
    if (orderingKey === undefined) lone.set(offset, made);
    else named.set(orderingKey, made);
    return made;
  }

  function leave({ orderingKey, offset }: KafkaDelivery): void {
    if (orderingKey === undefined) lone.delete(offset);
    else named.delete(orderingKey);
  }

  function merge(): void {
    if (freed.length === 0) return;
    ready = ready.concat(freed).sort((a, b) => a.offset - b.offset);
    freed = [];
  }

  /** Its messages are ready, if none of them is out and their time has come. */
  function free(lane: Lane, delivery: KafkaDelivery): void {
    if (lane.out > 0) return;
    const waitMs = lane.until - clock.now();
    if (waitMs > 0) {
      if (stopped) return;
      lane.cancel ??= clock.after(waitMs, () => {
        lane.cancel = undefined;
        free(lane, delivery);
        wake();
      });
      return;
    }
    freed.push(...lane.held);
    leave(delivery);
  }

  return {
    add(deliveries) {
      merge();
      for (const delivery of deliveries) ready.push(delivery);
    },
    take(limit, isWanted) {
      merge();
      takes++;
      const chunk: KafkaDelivery[] = [];
      let at = 0;
      for (; at < ready.length && chunk.length < limit; at++) {
        const delivery = ready[at]!;
        if (!isWanted(delivery)) continue;
        const lane = laneOf(delivery);
        if (lane.taken !== takes && (lane.out > 0 || lane.until > clock.now() || lane.held.length > 0)) {
          lane.held.push(delivery);
          continue;
        }
        lane.taken = takes;
        lane.out++;
        chunk.push(delivery);
      }
      ready = at === ready.length ? [] : ready.slice(at);
      return chunk;
    },
    done(delivery) {
      const lane = laneOf(delivery);
      lane.out--;
      free(lane, delivery);
    },
    giveBack(delivery, afterMs) {
      const lane = laneOf(delivery);
      lane.out--;
      if (afterMs > 0) lane.until = Math.max(lane.until, clock.now() + afterMs);
      // Those that were out together come before those that waited behind them.
      lane.held.push(delivery);
      lane.held.sort((a, b) => a.offset - b.offset);
      free(lane, delivery);
    },
    isReady() {
      return ready.length > 0 || freed.length > 0;
    },
    first() {
      merge();
      return ready[0]?.offset;
    },
    stop() {
      stopped = true;
      for (const lane of [...named.values(), ...lone.values()]) {
        lane.cancel?.();
        lane.cancel = undefined;
      }
    },
  };
}
