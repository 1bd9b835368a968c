import { sleep, type World } from '../../../src/clock.ts';
import { eventsOf, type KafkaConsumer, type KafkaRunConfig } from './client.ts';
import { backoffMs, type Report } from './link.ts';

/** Runs a consumer again that kafkajs has given up. */
export interface Revival {
  /** What it is going to be run with. */
  expect(config: KafkaRunConfig): void;
  /** It does not come back by itself: its crash has been heard here before. False: nor by us, who don't know what it was run with. */
  revive(): boolean;
  close(): void;
}

const longestWaitMs = 30_000;

/**
 * kafkajs 2.2.4 restarts a consumer after errors that it takes for passing, and leaves it for dead after others: the process lives on and reads nothing. One
 * of the others is its own. When a broker accepts a connection and then does not answer in time (frozen, or just starting), the client takes
 * itself for connected, and answers each call with `Error: Broker not connected` until it is disconnected.
 */
export function revival(consumer: KafkaConsumer, { world, report }: { world: World; report: Report }): Revival {
  let config: KafkaRunConfig | undefined;
  let failures = 0;
  let trying = false;
  /** And not run since. */
  let givenUp = false;
  /** kafkajs tells of what we do as it tells of what the user does. */
  let connecting = false;
  let disconnecting = false;
  /** Neither ours nor a crash's: the user's. */
  let disconnects = 0;
  const ended = new AbortController();
  const isUnwanted = () => disconnects > 0 || ended.signal.aborted;
  const isWanted = () => givenUp && !isUnwanted();
  const on = eventsOf(consumer);
  const off = [
    on('consumer.group_join', () => {
      failures = 0;
    }),
    on('consumer.connect', () => {
      if (connecting) return;
      // The user has it back.
      givenUp = false;
      disconnects = 0;
    }),
    on('consumer.disconnect', () => {
      if (disconnecting) disconnecting = false;
      else disconnects++;
    }),
    // One that crashes is disconnected before that is told.
    on('consumer.crash', () => {
      disconnects = Math.max(0, disconnects - 1);
    }),
  ];

  async function disconnect(): Promise<void> {
    disconnecting = true;
    try {
      await consumer.disconnect();
    } finally {
      disconnecting = false;
    }
  }

  async function connect(): Promise<void> {
    connecting = true;
    try {
      await consumer.connect();
    } finally {
      connecting = false;
    }
  }

  async function tryOnce(config: KafkaRunConfig): Promise<void> {
    await disconnect();
    if (!isWanted()) return;
    await connect();
    if (isWanted()) {
      givenUp = false;
      try {
        // It resolves also when it has crashed while it joined, which has been told by then.
        await consumer.run(config);
      } catch (error) {
        givenUp = true;
        throw error;
      }
    }
    // Somebody's disconnecting did not end what was under way: it would stay connected, and a member that keeps its partitions from others.
    if (isUnwanted()) await disconnect();
  }

  async function again(config: KafkaRunConfig): Promise<void> {
    trying = true;
    while (isWanted()) {
      await sleep(world.clock, backoffMs(failures++, longestWaitMs, world), ended.signal);
      if (isWanted()) await tryOnce(config).catch((error: unknown) => report(error, 'membership'));
    }
    trying = false;
  }

  return {
    expect(given) {
      config = given;
    },
    revive() {
      if (!config) return false;
      givenUp = true;
      if (isWanted() && !trying) void again(config);
      return true;
    },
    close() {
      ended.abort();
      for (const unhear of off.splice(0)) unhear();
    },
  };
}
