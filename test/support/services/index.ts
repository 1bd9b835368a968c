import { dynamodb } from './dynamodb.ts';
import { elasticmq } from './elasticmq.ts';
import { kafka } from './kafka.ts';
import { postgres } from './postgres.ts';
import { redis } from './redis.ts';
import { redisCluster } from './redis-cluster.ts';
import { type RunningHere, type Service, start } from './start.ts';

/** The services that tests may ask for: one file each beside this one. */
const services = { dynamodb, elasticmq, kafka, postgres, redis, 'redis-cluster': redisCluster } as const satisfies Record<
  string,
  Service<unknown>
>;

export const serviceNames = Object.keys(services) as ServiceName[];

export type ServiceName = keyof typeof services;
type AddressOf<Name extends ServiceName> = (typeof services)[Name] extends Service<infer Address> ? Address : never;

/** Where `host.ts` listens, which starts each service once for the whole run. Without it (a script, a bench) this process starts its own. */
export const hostVariable = 'TEST_SERVICES_HOST';

const started = new Map<ServiceName, Promise<{ address: unknown; stop(): Promise<void> }>>();

/** The address of a running service, started on first use. @throws Error that says what to install, if it can't be had */
export async function service<Name extends ServiceName>(name: Name): Promise<AddressOf<Name>> {
  const host = process.env[hostVariable];
  if (!host) return (await startHere(name)).address as AddressOf<Name>;
  const response = await fetch(`${host}/${name}`);
  const answer = (await response.json()) as { address?: AddressOf<Name>; error?: string };
  if (answer.address === undefined) throw new Error(answer.error);
  return answer.address;
}

/**
 * A service of one test's own, on this machine, to kill, pause and restart. `settings` are the program's own. Stop it in the end.
 * @throws Error that says what to install, if it can't be had
 */
export async function ownService<Name extends ServiceName>(
  name: Name,
  settings?: readonly string[],
): Promise<RunningHere<AddressOf<Name>>> {
  const { title, install, here } = services[name] as unknown as Service<AddressOf<Name>>;
  try {
    return await here(settings);
  } catch (error) {
    throw new Error(`This test needs a ${title} of its own, as a program of this machine: ${install}`, { cause: error });
  }
}

export function startHere(name: ServiceName): Promise<{ address: unknown; stop(): Promise<void> }> {
  let running = started.get(name);
  if (!running) {
    if (!Object.hasOwn(services, name)) throw new Error(`Expected one of ${Object.keys(services).join(', ')}, got ${name}`);
    running = start<unknown>(name, services[name]);
    started.set(name, running);
  }
  return running;
}

/** What to put into the environment, so that tests use this service. */
export function variableOf<Name extends ServiceName>(name: Name, address: AddressOf<Name>): [name: string, value: string] {
  const { variable, toVariable } = services[name] as unknown as Service<AddressOf<Name>>;
  return [variable, toVariable(address)];
}

/** Stops what this process has started. */
export async function stopAll(): Promise<void> {
  const running = [...started.values()];
  started.clear();
  await Promise.allSettled(running.map(async (each) => (await each).stop()));
}
