import { type Chance, hash, type Odds, Stream } from './chance.ts';
import { type CallFault, callFaults } from './link.ts';
import { type KafkaScenario, kafkaScenarioOf } from './scenario-kafka.ts';

export const ways = ['leased', 'fenced', 'transactional'] as const;
export type Way = (typeof ways)[number];
/** `standard` and `fifo`: queues of SQS. `kafka-transactions`: Kafka is the store too. `calls`: no broker, but callers of a `once` function. */
export const brokerKinds = ['standard', 'fifo', 'kafka', 'kafka-transactions', 'calls'] as const;
export type BrokerKind = (typeof brokerKinds)[number];

const onlyWays: Partial<Record<BrokerKind, Way>> = { calls: 'leased', 'kafka-transactions': 'transactional' };

/** What is simulated: each way on each broker, `once`, which is always leased, and Kafka transactions. */
export const cells: readonly { readonly way: Way; readonly broker: BrokerKind }[] = ways.flatMap((way) =>
  brokerKinds.filter((broker) => (onlyWays[broker] ?? way) === way).map((broker) => ({ way, broker })),
);

/** What a message is like. */
export type MessageKind =
  | 'plain'
  /** Its handler fails now and then. */
  | 'flaky'
  /** Its handler throws a TerminalError. */
  | 'terminal'
  /** Its handler kills the process, each time. */
  | 'poison'
  /** Its handler runs longer than a lease. */
  | 'long'
  /** The same, and it never looks at its signal. */
  | 'deaf'
  /** The key of another message, and another payload. */
  | 'impostor'
  /** It has no key. */
  | 'malformed';

/** One call of a producer. Copies have the key and the payload of an earlier one. */
export interface Sent {
  readonly name: string;
  readonly atMs: number;
  readonly key: string;
  readonly kind: MessageKind;
  /** Two messages with one key and different payloads are a mismatch. */
  readonly payload: string;
  readonly group: string;
  readonly copyOf: string | undefined;
  /** How long it stays out of sight in the broker before anybody gets it: a delay, or a consumer that sleeps. */
  readonly hiddenMs: number;
}

/** What can go wrong with a worker by itself, and with a handler. */
export type LifeFault = 'crash' | 'pause' | 'stop';
export type HandlerFault = 'throw-before' | 'throw-after' | 'slow' | 'stuck';
export type QueueFault = 'copy' | 'keep' | 'partial';

/** Everything about a run that is decided beforehand. */
export interface Scenario {
  readonly seed: number;
  readonly way: Way;
  readonly broker: BrokerKind;
  readonly workers: readonly string[];
  readonly messages: readonly Sent[];
  readonly healAtMs: number;
  readonly leaseMs: number;
  readonly visibilityMs: number;
  readonly storeTimeoutMs: number;
  readonly handlerTimeoutMs: number;
  readonly waitMs: number;
  readonly pollMs: number;
  readonly polls: number;
  readonly maxInFlight: number;
  readonly maxAttempts: number;
  readonly concurrency: number;
  readonly cacheSize: number;
  readonly groupSize: number;
  readonly results: boolean;
  readonly redrive: boolean;
  readonly maxReceives: number;
  readonly isolation: 'exclusive' | 'optimistic';
  /** Much shorter than in life in some runs, so that records are forgotten while copies still come. */
  readonly retentionMs: number;
  /** The store answers before it is durable, and a crash takes back what it has not written to its disk. */
  readonly relaxed: boolean;
  readonly skewMs: number;
  /** How far the clocks of workers may run fast or slow, as a share. */
  readonly drift: number;
  readonly kafka: KafkaScenario;
  readonly odds: {
    readonly store: Odds<CallFault>;
    readonly broker: Odds<CallFault>;
    readonly resource: Odds<CallFault>;
    readonly life: Odds<LifeFault>;
    readonly handler: Odds<HandlerFault>;
    readonly queue: Odds<QueueFault>;
    readonly outage: Odds<'refuses' | 'swallows'>;
  };
}

/**
 * Makes the scenario of a seed. Each seed has its own few kinds of faults, often or seldom (swarm testing): where everything goes wrong all the
 * time nothing gets far enough to go wrong in an interesting way, and a doubled effect always has an excuse.
 */
export function scenarioOf(seed: number, way: Way, broker: BrokerKind, chance: Chance): Scenario {
  const plan = new Stream(hash(seed, `scenario ${way} ${broker}`));
  const calm = plan.happens(0.08);
  const chosen = <Kind extends string>(kinds: readonly Kind[], share: number, most: number): [Kind, number][] =>
    kinds.flatMap((kind): [Kind, number][] => {
      const [is, much] = [plan.happens(share), plan.next()];
      return is && !calm ? [[kind, most * much * much]] : [];
    });
  const leaseMs = plan.pick([2_000, 4_000, 10_000]);
  const ladder = (share: number, most: number) => chosen(callFaults, share, most);
  const workers = ['w1', 'w2', 'w3', 'w4'].slice(0, plan.int(2, 4)).filter((name) => name === 'w1' || chance.keeps(`worker ${name}`));
  const isLog = broker === 'kafka-transactions';
  const forgetful = plan.happens(0.12) && !isLog;
  const relaxed = plan.happens(0.15) && !calm && !isLog;
  // Many messages at once, as after an outage: in few seeds, because they cost three times as much.
  const burst = new Stream(hash(seed, `burst ${way} ${broker}`)).happens(0.05);
  const scenario: Omit<Scenario, 'kafka'> = {
    seed,
    way,
    broker,
    workers,
    messages: messagesOf(seed, plan, chance, { forgetful, burst }),
    healAtMs: plan.int(20_000, 60_000),
    leaseMs,
    visibilityMs: Math.ceil((leaseMs * plan.pick([1.2, 1.5, 2, 3])) / 1_000) * 1_000,
    storeTimeoutMs: Math.round(leaseMs / plan.pick([3, 3, 8])),
    handlerTimeoutMs: plan.pick([300_000, leaseMs * 3]),
    waitMs: plan.pick([0, 0, 300, 2_000]),
    pollMs: plan.pick([5_000, 20_000, 20_000, 20_000]),
    polls: plan.pick([1, 1, 2]),
    maxInFlight: plan.pick(burst ? [3, 10, 20] : [1, 3, 10, 20]),
    maxAttempts: plan.pick([2, 3, 4, 10]),
    concurrency: plan.pick([1, 2, 10]),
    cacheSize: plan.pick([0, 100]),
    groupSize: plan.pick(burst ? [1, 2, 3] : [1, 2, 500]),
    results: (plan.happens(0.6) && !isLog) || broker === 'calls',
    // A redrive to a dead-letter queue and back takes longer than a forgetful store remembers, and would be refused.
    redrive: plan.happens(0.25) && !forgetful && broker !== 'kafka' && !isLog,
    maxReceives: plan.int(5, 10),
    isolation: plan.pick(['exclusive', 'optimistic']),
    relaxed,
    retentionMs: forgetful ? 60_000 : 1_209_600_000,
    // The age of a message is told by the wall clock, which is never wrong by as much as a store remembers.
    skewMs: forgetful ? 0 : plan.pick([0, 600_000]),
    drift: plan.pick([0, 0.1]),
    odds: {
      store: ladder(0.25, 0.15),
      broker: ladder(0.2, 0.1),
      // A resource that checks nothing does what it is asked each time it is asked; a driver that asks twice is the resource's own fault.
      resource: ladder(0.2, 0.15).filter(([kind]) => kind !== 'resent' || way !== 'leased'),
      life: chosen(['crash', 'pause', 'stop'], 0.4, 0.8),
      handler: chosen(['throw-before', 'throw-after', 'slow', 'stuck'], 0.2, 0.3),
      queue: chosen(['copy', 'keep', 'partial'], 0.25, 0.2),
      outage: relaxed
        ? [
            ['refuses', 0.2],
            ['swallows', 0.05],
          ]
        : chosen(['refuses', 'swallows'], 0.12, 1),
    },
  };
  return { ...scenario, kafka: kafkaScenarioOf(scenario) };
}

function messagesOf(
  seed: number,
  plan: Stream,
  chance: Chance,
  { forgetful, burst }: { readonly forgetful: boolean; readonly burst: boolean },
): Sent[] {
  const groups = burst ? plan.int(2, 8) : plan.int(1, 2);
  const count = burst ? plan.int(6, 14) : plan.int(2, 5);
  const messages: Sent[] = [];
  const odd = plan.happens(0.5);
  for (let i = 1; i <= count; i++) {
    const kind = odd ? plan.pick(kinds) : 'plain';
    // Other keys in each run, so that each has its chance to collide with another.
    const key = `k${i}/${seed}`;
    const group = `g${plan.int(1, groups)}`;
    const first: Sent = {
      name: `m${i}`,
      key,
      kind,
      payload: 'a',
      group,
      atMs: burst ? plan.int(0, 2) * 2_000 + plan.int(0, 40) : Math.floor(plan.next() * 8_000),
      copyOf: undefined,
      hiddenMs: 0,
    };
    messages.push(first);
    // Producers send again: soon, and long after any window of the broker.
    for (let copy = 0; plan.happens(copy === 0 ? 0.35 : 0.3) && copy < 3; copy++) {
      const atMs = first.atMs + Math.floor(plan.next() * plan.pick(forgetful ? [3_000, 60_000, 200_000] : [10, 3_000, 30_000]));
      // Sent when the first one was remembered, and handed out when it may be forgotten.
      const hiddenMs = forgetful && plan.happens(0.3) ? plan.int(20_000, 120_000) : 0;
      messages.push({ ...first, name: `${first.name}+${copy + 1}`, atMs, copyOf: first.name, hiddenMs });
    }
    if (odd && plan.happens(0.08)) {
      messages.push({
        ...first,
        name: `${first.name}!`,
        kind: 'impostor',
        payload: 'b',
        atMs: Math.floor(plan.next() * 12_000),
        copyOf: undefined,
      });
    }
  }
  messages.sort((a, b) => a.atMs - b.atMs);
  return messages.filter(({ name }) => chance.keeps(`send ${name}`));
}

const kinds: readonly MessageKind[] = ['plain', 'plain', 'plain', 'flaky', 'flaky', 'terminal', 'poison', 'long', 'deaf', 'malformed'];
