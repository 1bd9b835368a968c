import { sleep, type World } from '../../../src/clock.ts';
import type { KafkaConsumer, KafkaRunConfig } from './client.ts';
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
  let wanted = false;
  /** While it is waited, or connected again, the user may still disconnect it. */
  let step: 'none' | 'waiting' | 'disconnecting' | 'connecting' | 'running' = 'none';
  const ended = new AbortController();
  const on = consumer.on.bind(consumer) as (name: string, listener: (event: unknown) => void) => () => void;
  const off = [
    on('consumer.group_join', () => {
      failures = 0;
    }),
    on('consumer.disconnect', () => {
      if (step === 'waiting' || step === 'connecting') wanted = false;
    }),
  ];

  async function again(config: KafkaRunConfig): Promise<void> {
    while (wanted) {
      step = 'waiting';
      await sleep(world.clock, backoffMs(failures++, longestWaitMs, world), ended.signal);
      try {
        step = 'disconnecting';
        if (wanted) await consumer.disconnect();
        step = 'connecting';
        if (wanted) await consumer.connect();
        step = 'running';
        if (!wanted) break;
        wanted = false;
        // It resolves also when it has crashed while it joined, which has been told by then.
        await consumer.run(config);
      } catch (error) {
        report(error, 'membership');
        wanted = !ended.signal.aborted;
      }
    }
    step = 'none';
  }

  return {
    expect(given) {
      config = given;
    },
    revive() {
      if (!config) return false;
      wanted = !ended.signal.aborted;
      if (wanted && step === 'none') void again(config);
      return true;
    },
    close() {
      wanted = false;
      ended.abort();
      for (const unhear of off.splice(0)) unhear();
    },
  };
}
