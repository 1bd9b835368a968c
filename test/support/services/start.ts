import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Program } from './program.ts';

/** A service that tests may need, and the ways to get it. */
export interface Service<Address> {
  /** For people: `ElasticMQ 1.6`. */
  readonly title: string;
  /** An environment variable with the address of one that runs already. */
  readonly variable: string;
  /** The address as tests get it, of the variable's value. */
  fromVariable(value: string): Address;
  /** The variable's value for an address: the other way round. */
  toVariable(address: Address): string;
  /** Starts it in Docker. Called only if a daemon answers. */
  inDocker(): Promise<Running<Address>>;
  /** Starts a program of this machine, or one that a package registry brings. `settings` are the program's own, for tests that need others. */
  here(settings?: readonly string[]): Promise<RunningHere<Address>>;
  /** What to install so that `here` works. */
  readonly install: string;
}

export interface Running<Address> {
  readonly address: Address;
  stop(): Promise<void>;
}

/** One that faults can be made with. */
export type RunningHere<Address> = Running<Address> & Program;

/** The one order in which every service is looked for: environment, Docker, this machine. A failure tells what was tried and what to do. */
export async function start<Address>(name: string, service: Service<Address>): Promise<Running<Address>> {
  const given = process.env[service.variable];
  if (given) return { address: service.fromVariable(given), stop: async () => {} };
  const tried: string[] = [];
  if (await dockerAnswers()) {
    try {
      return await service.inDocker();
    } catch (error) {
      tried.push(`Docker: ${String(error)}`);
    }
  } else {
    tried.push('Docker: no daemon answers');
  }
  try {
    return await service.here();
  } catch (error) {
    tried.push(`this machine: ${String(error)}`);
  }
  throw new Error(
    `These tests need ${service.title} (${name}). Set ${service.variable} to the address of one, or start Docker, or ${service.install}.\nTried:\n- ${tried.join('\n- ')}`,
  );
}

const run = promisify(execFile);

async function dockerAnswers(): Promise<boolean> {
  try {
    await run('docker', ['version', '--format', '{{.Server.Version}}'], { timeout: 5_000 });
    return true;
  } catch {
    return false;
  }
}
