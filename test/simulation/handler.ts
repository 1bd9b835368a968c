import type { KafkaTx } from '../../adapters/stores/kafka-transactions/index.ts';
import { TerminalError } from '../../src/index.ts';
import type { Kernel } from '../../src/testing/virtual/kernel.ts';
import type { VirtualTx } from '../../src/testing/virtual/units.ts';
import type { Chance, Odds } from './chance.ts';
import type { Ledger, Run } from './ledger.ts';
import type { Link } from './link.ts';
import type { HandlerFault, MessageKind, Scenario } from './scenario.ts';
import type { Watch } from './watch.ts';
import type { Worker } from './worker.ts';

interface Context {
  readonly message: { readonly id: string };
  readonly signal: AbortSignal;
  readonly attempt: number;
  readonly fence?: number;
  readonly tx?: Partial<Pick<VirtualTx<Run>, 'write'> & KafkaTx>;
}

/**
 * The handler of one worker: waits, changes the world outside, waits again, and gives a result that no other run gives. What else it does
 * depends on the message.
 */
export function handlerOf(
  { way, leaseMs, odds }: Scenario,
  parts: {
    kernel: Kernel;
    chance: Chance;
    ledger: Ledger;
    watch: Watch;
    worker: Worker;
    link: Link;
    kindOf: (messageId: string) => MessageKind;
  },
) {
  const { kernel, chance, ledger, watch, worker, link, kindOf } = parts;
  const faults = chance.site(`${worker.name} handler`);
  const pace = chance.stream(`${worker.name} handler pace`);
  const flaky: Odds<HandlerFault> = [
    ['throw-before', 0.25],
    ['throw-after', 0.2],
    ['slow', 0.1],
  ];

  return async ({ id, payload }: { id: string; payload: string }, context: Context): Promise<{ run: number }> => {
    const kind = kindOf(context.message.id);
    const run = ledger.begin({ key: id, payload, messageId: context.message.id, worker, attempt: context.attempt, fence: context.fence });
    watch.tell(
      worker.name,
      () => `run ${run.id} of ${id} begins (attempt ${run.attempt}${run.fence === undefined ? '' : `, fence ${run.fence}`})`,
    );
    try {
      const counted = await work(run, kind, context);
      ledger.end(run, 'returned');
      watch.tell(worker.name, () => `run ${run.id} of ${id} returns`);
      return { run: counted };
    } catch (error) {
      ledger.end(run, 'threw');
      watch.tell(worker.name, () => `run ${run.id} of ${id} fails: ${String(error)}`);
      throw error;
    }
  };

  async function work(run: Run, kind: MessageKind, context: Context): Promise<number> {
    const fault = faults.draw(kind === 'flaky' ? flaky : odds.handler, kernel.now);
    if (fault) watch.tell(worker.name, () => `run ${run.id}: ${fault.kind}`, true);
    const deaf = kind === 'deaf' || fault?.kind === 'stuck';
    const wait = async (ms: number) => {
      await worker.sleep(ms);
      if (!deaf && context.signal.aborted) throw context.signal.reason;
    };
    await wait(pace.next() * 50);
    if (kind === 'terminal') throw new TerminalError('never');
    if (kind === 'poison') {
      watch.tell(worker.name, () => `run ${run.id} of ${run.key} kills its process`, true);
      worker.crash();
      return await new Promise<never>(() => {});
    }
    if (fault?.kind === 'throw-before') throw new Error('before the effect');
    const long = kind === 'long' || kind === 'deaf' || fault?.kind === 'slow' || fault?.kind === 'stuck';
    // In steps, because a handler that works for long awaits many things.
    for (let left = long ? leaseMs * (0.5 + pace.next() * 2.5) : 0; left > 0; left -= leaseMs / 2) await wait(Math.min(left, leaseMs / 2));
    const counted = await effect(run, context);
    watch.tell(worker.name, () => `run ${run.id} of ${run.key} has its effect`);
    await wait(pace.next() * 50);
    if (fault?.kind === 'throw-after') throw new Error('after the effect');
    return counted;
  }

  async function effect(run: Run, { tx }: Context): Promise<number> {
    if (way !== 'transactional') return link.call('effect', () => ledger.apply(way, run));
    // What is published is the effect: it is seen when its transaction has committed.
    if (tx!.publish) tx!.publish('out', { key: run.key, value: String(run.id) });
    else await tx!.write!(run);
    return run.id;
  }
}
