import { sleep, type World } from '../../../src/clock.ts';
import { eventsOf, type KafkaConsumer, type KafkaRunConfig } from './client.ts';
import { backoffMs, type Report } from './link.ts';

/** Runs a consumer again that kafkajs has given up. */
export interface Revival {
  /** What it is going to be run with. */
  expect(config: KafkaRunConfig): void;
  /** It does not come back by itself. False: nor by us, who don't know what it was run with. */
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
  /** It has been given up, and neither was it disconnected by the user since, nor the adapter stopped. */
  let wanted = false;
  /** kafkajs tells of our own disconnecting as it tells of the user's. */
  let disconnecting = false;
  const ended = new AbortController();
  const on = eventsOf(consumer);
  const off = [
    on('consumer.group_join', () => {
      failures = 0;
    }),
    // One that crashes is disconnected before it is given up.
    on('consumer.disconnect', () => {
      wanted &&= disconnecting;
    }),
  ];

  async function tryOnce(config: KafkaRunConfig): Promise<void> {
    disconnecting = true;
    try {
      await consumer.disconnect();
    } finally {
      disconnecting = false;
    }
    if (wanted) await consumer.connect();
    if (!wanted) return;
    wanted = false;
    try {
      // It resolves also when it has crashed while it joined, which has been told by then.
      await consumer.run(config);
    } catch (error) {
      wanted = !ended.signal.aborted;
      throw error;
    }
  }

  async function again(config: KafkaRunConfig): Promise<void> {
    trying = true;
    while (wanted) {
      await sleep(world.clock, backoffMs(failures++, longestWaitMs, world), ended.signal);
      if (wanted) await tryOnce(config).catch((error: unknown) => report(error, 'membership'));
    }
    trying = false;
  }

  return {
    expect(given) {
      config = given;
    },
    revive() {
      if (!config) return false;
      wanted = !ended.signal.aborted;
      if (wanted && !trying) void again(config);
      return true;
    },
    close() {
      wanted = false;
      ended.abort();
      for (const unhear of off.splice(0)) unhear();
    },
  };
}
