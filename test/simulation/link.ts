import type { Kernel } from '../../src/testing/virtual/kernel.ts';
import { type Calls, NetworkError, RefusedError } from '../../src/testing/virtual/network.ts';
import type { Chance, Fault, Odds, Site, Stream } from './chance.ts';
import type { Worker } from './worker.ts';

/** What can go wrong with one request, and with the worker around it. */
export const callFaults = [
  /** The worker dies before the request has left, or just after. */
  'crash-before',
  'crash-after',
  /** The worker stands still before the request leaves, or while it is under way. */
  'pause-before',
  'pause-after',
  /** The request never arrives, or its reply; the caller gets an error. */
  'lost-request',
  'lost-reply',
  /** The same, and the caller gets nothing. */
  'hang-request',
  'hang-reply',
  'slow-request',
  'slow-reply',
  /** The reply was lost, and the driver sends the request again by itself. */
  'resent',
  /** The server answers that it could not do it. */
  'refused',
] as const;
export type CallFault = (typeof callFaults)[number];

/** A server as the network sees it. */
export class Server {
  readonly name: string;
  /** Until when it is down, and whether it refuses connections then or swallows them. */
  downUntil = 0;
  swallows = false;
  /** Called when it goes down. */
  onCrash: () => void = () => {};

  constructor(name: string) {
    this.name = name;
  }
}

export interface LinkOptions {
  readonly kernel: Kernel;
  readonly chance: Chance;
  readonly worker: Worker;
  readonly server: Server;
  readonly odds: Odds<CallFault>;
  /** The longest pause of a worker, and the longest delay of a slow message. */
  readonly pauseMs: number;
  readonly slowMs: number;
  /** A driver that gives up by itself: after so long a request without a reply is an error. Undefined: it waits for ever. */
  readonly hangMs: number | undefined;
  readonly onFault: (fault: Fault, op: string) => void;
}

/** The shortest time after which any caller gives up. */
const longMs = 200;

/** What may go wrong with these costs nobody a claim: a message comes again, and is known. A handler that sees its effect fail fails itself. */
const harmless = new Set([
  ...['receive', 'delete', 'dead-letter', 'attributes', 'url', 'purge', 'effect'],
  ...['Fetch', 'OffsetFetch', 'OffsetCommit', 'JoinGroup', 'SyncGroup', 'LeaveGroup'],
]);

/** Requests that are meant to wait at the server. */
const patient = new Set(['receive', 'Fetch', 'JoinGroup']);

/** A new one each time: whoever waits for a promise is kept by it. */
const never = () => new Promise<never>(() => {});

/** The way from one worker to one server. A request and its reply can each be lost, slow, held or repeated. */
export class Link implements Calls {
  readonly #of: LinkOptions;
  readonly #latency: Stream;
  readonly #sites = new Map<string, Site>();

  constructor(options: LinkOptions) {
    this.#of = options;
    this.#latency = options.chance.stream(`${options.worker.name} latency ${options.server.name}`);
  }

  /** Sends a request that the server answers by `run`. `refuse` makes its refusal, if it has one. */
  call<T>(op: string, run: () => T | Promise<T>, refuse?: () => T): Promise<T> {
    const { kernel, worker, server, odds, pauseMs, slowMs, hangMs, onFault } = this.#of;
    if (!worker.alive) return never();
    const fault = this.#site(op).draw(odds, kernel.now);
    const kind = fault?.kind;
    const isExcuse = !harmless.has(op);
    const size = fault?.size ?? 0;
    if (fault) {
      onFault(fault, op);
      worker.trouble(isExcuse);
    }
    if (kind === 'crash-before') {
      worker.crash();
      return never();
    }
    if (kind === 'pause-before') worker.pause(1 + size * pauseMs);
    return new Promise<T>((resolve, reject) => {
      const fail = (afterMs: number, error: Error) => {
        worker.trouble(isExcuse);
        worker.deliver(kernel.now + afterMs, () => reject(error));
      };
      const hang = () => {
        worker.trouble(isExcuse);
        if (hangMs !== undefined) fail(hangMs, new NetworkError(`${op}: no reply`));
      };
      const wayBack = kind === 'slow-reply' ? size * slowMs : 0;
      const sentAt = kernel.now;
      const answer = (take: () => void) => {
        // A server that takes so long (a lock, a queue) may be taken for dead by the caller.
        if (kernel.now - sentAt > longMs && !patient.has(op)) worker.trouble(isExcuse);
        // What a slow receive brings has been hidden, and a member that is slow to learn of it has been silent, for longer than the worker can know.
        if (kind === 'slow-reply' && patient.has(op)) worker.trouble(isExcuse || op === 'receive', kernel.now + wayBack);
        if (kind === 'lost-reply') return fail(this.#ms(), new NetworkError(`${op}: reply lost`));
        if (kind === 'hang-reply') return hang();
        worker.deliver(kernel.now + this.#ms() + wayBack, take);
      };
      const arrive = (again: boolean) => {
        if (server.downUntil > kernel.now) {
          if (server.swallows) return hang();
          return fail(this.#ms(), new NetworkError(`${op}: connection refused`));
        }
        if (kind === 'refused') {
          if (!refuse) return fail(this.#ms(), new RefusedError(`${op}: refused`));
          const refusal = refuse();
          return answer(() => resolve(refusal));
        }
        let ran: T | Promise<T>;
        try {
          ran = run();
        } catch (error) {
          return answer(() => reject(error));
        }
        const came = (value: T) => {
          if (again) return void kernel.plan(kernel.now + this.#ms() + size * 500, () => arrive(false));
          answer(() => resolve(value));
        };
        if (ran instanceof Promise) ran.then(came, (error: unknown) => answer(() => reject(error)));
        else came(ran);
      };
      const leavesAt = worker.leavesAt;
      if (kind === 'lost-request') fail(this.#ms() * 2, new NetworkError(`${op}: request lost`));
      else if (kind === 'hang-request') hang();
      else kernel.plan(leavesAt + this.#ms() + (kind === 'slow-request' ? size * slowMs : 0), () => arrive(kind === 'resent'));
      if (kind === 'crash-after') worker.crash();
      if (kind === 'pause-after') worker.pause(1 + size * pauseMs);
    });
  }

  #site(op: string): Site {
    let site = this.#sites.get(op);
    if (!site) this.#sites.set(op, (site = this.#of.chance.site(`${this.#of.worker.name} ${op}`)));
    return site;
  }

  #ms(): number {
    return 1 + this.#latency.next() * 6;
  }
}
