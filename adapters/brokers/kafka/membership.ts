import { type Clock, sleep } from '../../../src/clock.ts';
import { eventsOf, type KafkaConsumer, kafkaErrorType } from './client.ts';
import type { Report } from './link.ts';

/** What the adapter knows of its consumer's place in the group. Fed by kafkajs's events and by the answers to heartbeats. */
export interface Membership {
  /** Nothing has been heard of it yet. */
  isNew(): boolean;
  /** It is a member, as far as is known, and the group is not rebalancing. */
  isStable(): boolean;
  groupId(): string | undefined;
  /** Resolves with true when the broker has answered a heartbeat that was sent from now on; with false when the membership is lost. */
  proven(): Promise<boolean>;
  /** Sends heartbeats until `until` resolves or the membership is lost. kafkajs sends one only when its heartbeatInterval is over. */
  beat(heartbeat: () => Promise<void>, until: Promise<unknown>): Promise<void>;
  /** A request was refused: some answers are news of the membership. */
  refused(error: unknown): void;
  close(): void;
}

export interface MembershipHooks {
  /** Nothing is ours any more. `expelled`: others may have it already; else it is given back by joining anew. */
  lost(expelled: boolean): void;
  /** The group is rebalancing: nothing new is to be begun, what runs is to be finished, then the consumer joins anew. */
  leaving(): void;
  /** It should have joined anew long ago, and kafkajs may not be trying. Called again and again. */
  overdue(): void;
  /** kafkajs has given the consumer up: it does not join anew by itself. */
  givenUp(error: unknown): void;
  /** An offset was committed that the adapter has not asked for. */
  foreignCommit(): void;
}

const beatMs = 500;

/** Longer than the others of the group may take to join: kafkajs's `rebalanceTimeout` is 60 s. */
const overdueMs = 120_000;

/**
 * Thrown at kafkajs 2.2.4, makes it join its group. When a join breaks off (the connection closed, no reply in time) it goes on with what it had before:
 * without a heartbeat if it was out of the group, and for ever; or as a member of the new generation that reads the partitions of the old one.
 */
export class JoinAnew extends Error {
  override readonly name = 'KafkaJSProtocolError';
  readonly type = 'REBALANCE_IN_PROGRESS';
  readonly retriable = true;

  constructor() {
    super('The consumer is not a member of its group any more, and has to join it again');
  }
}

/** Answers that mean that the broker has given our partitions to others. */
const expelled = new Set(['UNKNOWN_MEMBER_ID', 'ILLEGAL_GENERATION', 'FENCED_INSTANCE_ID']);

export function membership(
  consumer: KafkaConsumer,
  { clock, report, hooks, isCommitting }: { clock: Clock; report: Report; hooks: MembershipHooks; isCommitting(): boolean },
): Membership {
  let isNew = true;
  let member = false;
  let leaving = false;
  let groupId: string | undefined;
  let closed = false;
  let cancel = () => {};
  let provers: ((isMember: boolean) => void)[] = [];
  /** kafkajs reads from each broker by itself. Whether it waits for an answer of it, or hands out what has come. */
  const waits = new Map<number, boolean>();
  const on = eventsOf(consumer);

  function answer(isMember: boolean): void {
    const asking = provers;
    provers = [];
    for (const resolve of asking) resolve(isMember);
  }

  function lose(expelled: boolean): void {
    if (!member) return;
    member = false;
    answer(false);
    hooks.lost(expelled);
  }

  /** It is to join anew by itself. */
  function loseFor(ms: number, expelled: boolean): void {
    lose(expelled);
    cancel();
    if (closed) return;
    cancel = clock.after(ms, () => {
      hooks.overdue();
      loseFor(ms, expelled);
    });
  }

  /** It has ended, or begins anew from the start. */
  function end(): void {
    lose(true);
    cancel();
  }

  /** kafkajs has waited for all that it had begun to read and to hand out. */
  function ended(): void {
    waits.clear();
    end();
  }

  /**
   * Whether kafkajs joins in the middle of a fetch, because of a broker that does not lead a partition any more. What has been asked of other brokers is
   * handed out all the same, and then read on behind, whatever has been given back before it. That ends with a join by itself, for which kafkajs waits.
   */
  function joinsAside(): boolean {
    return waits.size > 1 && [...waits.values()].includes(true);
  }

  const off = [
    on('consumer.group_join', ({ payload }) => {
      const isAside = joinsAside();
      end();
      groupId = payload.groupId;
      isNew = false;
      member = !isAside;
      leaving = false;
    }),
    on('consumer.fetch_start', ({ payload }) => void waits.set(payload.nodeId, true)),
    on('consumer.fetch', ({ payload }) => void waits.set(payload.nodeId, false)),
    // Told when all handlers of batches have ended, just before it joins anew.
    on('consumer.rebalancing', () => {
      waits.clear();
      loseFor(overdueMs, false);
    }),
    on('consumer.stop', ended),
    on('consumer.disconnect', ended),
    on('consumer.crash', ({ payload }) => {
      ended();
      report(payload.error, 'membership');
      if (payload.restart) loseFor(overdueMs, false);
      else hooks.givenUp(payload.error);
    }),
    on('consumer.heartbeat', () => answer(true)),
    on('consumer.commit_offsets', () => {
      if (!isCommitting()) hooks.foreignCommit();
    }),
  ];

  function nextAnswer(): Promise<boolean> {
    return member ? new Promise((resolve) => provers.push(resolve)) : Promise.resolve(false);
  }

  /** kafkajs meets the same answer itself as soon as its turn comes, and joins anew. */
  function refused(error: unknown): void {
    const type = kafkaErrorType(error) ?? '';
    if (expelled.has(type)) loseFor(overdueMs, true);
    else if (type === 'REBALANCE_IN_PROGRESS') {
      if (member && !leaving) {
        leaving = true;
        hooks.leaving();
      }
    }
    // Anything else is no news of the membership: kafkajs finds the coordinator again.
  }

  return {
    isNew() {
      return isNew;
    },
    isStable() {
      return member && !leaving;
    },
    refused,
    groupId() {
      return groupId;
    },
    async proven() {
      // The answer that is under way may be to a heartbeat of before.
      return (await nextAnswer()) && (await nextAnswer());
    },
    async beat(heartbeat, until) {
      const over = new AbortController();
      // Its rejection is told by the race.
      void until.catch(() => {}).finally(() => over.abort());
      do {
        await Promise.race([heartbeat().catch(refused), until]);
      } while (member && (await sleep(clock, beatMs, over.signal)));
    },
    close() {
      closed = true;
      cancel();
      for (const unhear of off) unhear();
    },
  };
}
