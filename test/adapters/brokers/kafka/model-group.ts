import type { Clock } from '../../../../src/clock.ts';

/** A consumer group as its coordinator keeps it. */
export interface GroupModel {
  /** Resolves when all members have joined, or when those that have not have been put out. */
  join(memberId: string | undefined, member: Membership): Promise<{ memberId: string; generation: number }>;
  /** What the member has got in this generation. */
  sync(memberId: string | undefined, generation: number): string[];
  leave(memberId: string): void;
  heartbeat(memberId: string | undefined, generation: number): void;
  commit(memberId: string | undefined, generation: number, partition: string, offset: number): void;
  /** By a transaction, which nobody asks for its generation. Answers what puts it into effect. Of two, that counts which was sent later. */
  commitInTransaction(partition: string, offset: number): () => void;
  committed(partition: string): number | undefined;
  /** Every committed offset, in order. */
  readonly history: { readonly partition: string; readonly offset: number; readonly memberId: string }[];
  /** Puts a member out, as if its session had ended. */
  expel(memberId: string): void;
  /** Makes all members join anew. */
  rebalance(): void;
  members(): readonly string[];
  /** Whether the one with this id has ever learnt it. */
  knows(memberId: string): boolean;
}

/** Told of what the coordinator decides. */
export interface GroupWatch {
  /** All that have joined are in a new generation. */
  rebalanced?(generation: number): void;
  /** Why a member is none any more: silent for its session, not back from a rebalance in time, or by itself. */
  out?(memberId: string, why: 'session' | 'rebalance' | 'left'): void;
  /** A commit was refused: its member or its generation is not of the group any more. */
  refused?(memberId: string, partition: string, offset: number): void;
  committed?(partition: string, offset: number, memberId: string): void;
}

interface Membership {
  /** Begins the ids of its members. */
  readonly clientId?: string | undefined;
  readonly topics: readonly string[];
  readonly sessionTimeout: number;
  readonly rebalanceTimeout: number;
}

interface Member extends Membership {
  cancel: () => void;
  joining: ((joined: { memberId: string; generation: number }) => void) | undefined;
  assigned: string[];
}

/** An error as kafkajs makes of a protocol error. */
export function protocolError(type: string, retriable = false): Error {
  return Object.assign(new Error(type), { name: 'KafkaJSProtocolError', type, retriable });
}

export function groupModel(clock: Clock, partitionsOf: (topics: readonly string[]) => string[], watch: GroupWatch = {}): GroupModel {
  const members = new Map<string, Member>();
  const offsets = new Map<string, number>();
  const history: GroupModel['history'] = [];
  const synced = new Set<string>();
  /** By partition: the place of the commit that counts among all that were sent. */
  const orders = new Map<string, number>();
  let sent = 0;
  let generation = 0;
  let made = 0;
  let preparing: (() => void) | undefined;

  function touch(memberId: string): void {
    const member = members.get(memberId)!;
    member.cancel();
    // Who waits for the others is not put out meanwhile.
    member.cancel = member.joining ? () => {} : clock.after(member.sessionTimeout, () => expel(memberId, 'session'));
  }

  function prepare(): void {
    if (preparing) return;
    const waitMs = Math.max(0, ...[...members.values()].map(({ rebalanceTimeout }) => rebalanceTimeout));
    preparing = clock.after(waitMs, complete);
  }

  function complete(): void {
    preparing?.();
    preparing = undefined;
    for (const [id, member] of members) if (!member.joining) remove(id, 'rebalance');
    if (members.size === 0) return;
    generation++;
    watch.rebalanced?.(generation);
    const ids = [...members.keys()].sort();
    const assigned = new Map(ids.map((id) => [id, [] as string[]]));
    const topics = [...new Set([...members.values()].flatMap((member) => member.topics))];
    partitionsOf(topics).forEach((partition, i) => void assigned.get(ids[i % ids.length]!)!.push(partition));
    for (const [memberId, member] of members) {
      const joined = member.joining!;
      member.joining = undefined;
      member.assigned = assigned.get(memberId)!;
      touch(memberId);
      joined({ memberId, generation });
    }
  }

  function remove(memberId: string, why: 'session' | 'rebalance' | 'left'): void {
    members.get(memberId)?.cancel();
    members.delete(memberId);
    watch.out?.(memberId, why);
  }

  function completeIfAll(): void {
    if (preparing && members.size > 0 && [...members.values()].every(({ joining }) => joining)) complete();
  }

  function expel(memberId: string, why: 'session' | 'left'): void {
    if (!members.has(memberId)) return;
    remove(memberId, why);
    if (members.size === 0) {
      preparing?.();
      preparing = undefined;
      return;
    }
    prepare();
    completeIfAll();
  }

  function check(memberId: string | undefined, of: number): string {
    if (memberId === undefined || !members.has(memberId)) throw protocolError('UNKNOWN_MEMBER_ID');
    if (of !== generation) throw protocolError('ILLEGAL_GENERATION');
    touch(memberId);
    return memberId;
  }

  return {
    history,
    expel: (memberId) => expel(memberId, 'session'),
    leave: (memberId) => expel(memberId, 'left'),
    rebalance: prepare,
    knows: (memberId) => synced.has(memberId),
    members() {
      return [...members.keys()];
    },
    async join(known, membership) {
      if (known !== undefined && !members.has(known)) throw protocolError('UNKNOWN_MEMBER_ID');
      const memberId = known ?? `${membership.clientId ?? 'member'}-${++made}`;
      members.get(memberId)?.cancel();
      return new Promise((resolve) => {
        members.set(memberId, { ...membership, cancel: () => {}, joining: resolve, assigned: [] });
        prepare();
        completeIfAll();
      });
    },
    sync(memberId, of) {
      const id = check(memberId, of);
      if (preparing) throw protocolError('REBALANCE_IN_PROGRESS');
      synced.add(id);
      return members.get(id)!.assigned;
    },
    heartbeat(memberId, of) {
      check(memberId, of);
      if (preparing) throw protocolError('REBALANCE_IN_PROGRESS');
    },
    commit(memberId, of, partition, offset) {
      let id: string;
      try {
        id = check(memberId, of);
      } catch (error) {
        watch.refused?.(memberId ?? 'nobody', partition, offset);
        throw error;
      }
      offsets.set(partition, offset);
      orders.set(partition, ++sent);
      history.push({ partition, offset, memberId: id });
      watch.committed?.(partition, offset, id);
    },
    commitInTransaction(partition, offset) {
      const order = ++sent;
      return () => {
        if ((orders.get(partition) ?? 0) > order) return;
        orders.set(partition, order);
        offsets.set(partition, offset);
        watch.committed?.(partition, offset, 'a transaction');
      };
    },
    committed: (partition) => offsets.get(partition),
  };
}
