import type { Kernel } from '../../../src/testing/virtual/kernel.ts';
import type { Callee, Consumer, SimBroker, Whereabouts } from '../broker.ts';
import type { Chance } from '../chance.ts';
import { Server } from '../link.ts';
import type { Scenario, Sent } from '../scenario.ts';
import { finalReason } from '../subject.ts';
import type { Watch } from '../watch.ts';
import type { Worker } from '../worker.ts';

/** A worker that takes calls. */
interface Open {
  readonly worker: Worker;
  readonly callee: Callee;
  /** Calls that it has not answered. */
  calls: number;
}

/**
 * No broker: callers who call a `once` function in any worker, and call again, there or elsewhere, until they know how it ended. They lose
 * patience while a call is still running, so calls for one key overlap.
 */
export function callers(kernel: Kernel, chance: Chance, scenario: Scenario, watch: Watch): SimBroker {
  const choice = chance.stream('callers');
  const haste = chance.site('callers');
  const messages: Whereabouts[] = [];
  const byId = new Map<string, Whereabouts>();
  const open: Open[] = [];
  const ms = () => 1 + choice.next() * 6;

  function call(message: Whereabouts): void {
    if (message.state !== 'queued') return;
    const able = open.filter(({ worker }) => worker.alive);
    if (able.length === 0) return void kernel.after(500, () => call(message));
    const callee = choice.pick(able);
    if (message.deliveries++ === 0) message.firsts++;
    else watch.count('redeliveries');
    const again = once(() => call(message));
    watch.tell('caller', () => `calls ${callee.worker.name} for ${message.sent.name}, call ${message.deliveries}`);
    callee.worker.deliver(kernel.now + ms(), () => {
      if (!open.includes(callee)) return void kernel.after(ms(), again);
      callee.calls++;
      const answer = (take: () => void) => {
        callee.calls--;
        kernel.after(ms(), take);
      };
      callee.callee.call(argumentOf(message.sent), message.messageId).then(
        () => answer(() => end(message, 'acked')),
        (error: { retryAfterMs?: number }) =>
          answer(() => {
            if (finalReason(error)) end(message, 'dead-lettered');
            else kernel.after(error.retryAfterMs ?? 500, again);
          }),
      );
    });
    kernel.after(3_000 + choice.next() * 20_000, again);
    if (haste.draw(scenario.odds.queue, kernel.now)?.kind !== 'copy') return;
    watch.count('copies');
    watch.tell('caller', () => `calls twice for ${message.sent.name}`, true);
    kernel.after(ms(), again);
  }

  function end(message: Whereabouts, state: 'acked' | 'dead-lettered'): void {
    if (message.state !== 'queued') return;
    message.state = state;
    watch.tell('caller', () => `has its answer for ${message.sent.name}: ${state}`);
  }

  return {
    server: new Server('callers'),
    ordered: false,
    messages,
    find: (messageId) => byId.get(messageId)!,
    onAck: () => {},
    quiet: () => messages.every(({ state }) => state !== 'queued'),
    send(sent) {
      const message: Whereabouts = {
        sent,
        messageId: `call-${messages.length + 1}`,
        order: messages.length,
        sentAt: kernel.now,
        state: 'queued',
        redriven: false,
        deliveries: 0,
        firsts: 0,
      };
      messages.push(message);
      byId.set(message.messageId, message);
      call(message);
    },
    consumer() {
      throw new Error('Nobody consumes calls');
    },
    callee: (worker, callee) => taking({ worker, callee, calls: 0 }),
  };

  /** A process that takes calls until it is stopped. Then it ends what it has begun; what does not end in time dies with it. */
  function taking(one: Open): Consumer {
    const { worker, callee } = one;
    const isIdle = () => one.calls === 0 && callee.running() === 0;
    return {
      run: async () => void open.push(one),
      stop: ({ graceMs }) =>
        new Promise((resolve) => {
          open.splice(open.indexOf(one), 1);
          const until = kernel.now + graceMs;
          let idleSince = Number.POSITIVE_INFINITY;
          const look = () => {
            idleSince = isIdle() ? Math.min(idleSince, kernel.now) : Number.POSITIVE_INFINITY;
            // A purge by the way, which nobody waits for, has its own limit in time.
            const limit = Math.max(idleSince, worker.pausedUntil) + scenario.storeTimeoutMs * 2;
            if (isIdle() && (worker.timers === 0 || kernel.now > limit)) resolve({ abandoned: 0 });
            else if (!isIdle() && kernel.now >= until) worker.crash();
            else worker.deliver(kernel.now + 100, look);
          };
          look();
        }),
    };
  }
}

function argumentOf({ key, kind, payload }: Sent): { id: string; payload: string } {
  return { id: kind === 'malformed' ? '' : key, payload };
}

function once(task: () => void): () => void {
  let done = false;
  return () => {
    if (!done) task();
    done = true;
  };
}
