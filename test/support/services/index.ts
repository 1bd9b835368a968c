import { elasticmq } from './elasticmq.ts';
import { type Service, start } from './start.ts';

/** The services that tests may ask for: one file each beside this one. */
const services = { elasticmq } as const satisfies Record<string, Service<unknown>>;

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

export function startHere(name: ServiceName): Promise<{ address: unknown; stop(): Promise<void> }> {
  let running = started.get(name);
  if (!running) {
    if (!Object.hasOwn(services, name)) throw new Error(`Expected one of ${Object.keys(services).join(', ')}, got ${name}`);
    running = start(name, services[name]);
    started.set(name, running);
  }
  return running;
}

/** Stops what this process has started. */
export async function stopAll(): Promise<void> {
  const running = [...started.values()];
  started.clear();
  await Promise.allSettled(running.map(async (each) => (await each).stop()));
}
