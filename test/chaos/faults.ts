import { setTimeout as pause } from 'node:timers/promises';
import type { FaultProxy } from '../support/proxy.ts';
import type { Program } from '../support/services/program.ts';

/** Each happens for about so long, and has healed when it resolves. */
export type Faults = Readonly<Record<string, (forMs: number) => Promise<unknown>>>;

/** A server that is out for a time: the process, or the way to it. */
export function outages(program: Program, proxy: FaultProxy): Faults {
  return {
    async pause(forMs) {
      program.pause();
      await pause(forMs).finally(() => program.resume());
    },
    async cut(forMs) {
      proxy.cut();
      await pause(forMs).finally(() => proxy.heal());
    },
    async freeze(forMs) {
      proxy.freeze();
      await pause(forMs).finally(() => proxy.heal());
    },
    /** The next requests arrive, and their answers are lost with their connections. */
    async 'lose replies'(forMs) {
      proxy.next({ fault: 'lose-reply', times: 8 });
      await pause(forMs).finally(() => proxy.heal());
    },
  };
}

/** A server whose process dies, for those that keep what they have acknowledged. */
export function deaths(program: Program): Faults {
  return {
    async kill(forMs) {
      await program.kill();
      await pause(forMs / 2);
      await program.restart();
    },
    restart: () => program.restart(),
  };
}
