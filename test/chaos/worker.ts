/**
 * One of the workers that are killed and stopped. Its only argument is a `Task` as JSON. Clients are loaded only where they are needed, because
 * hundreds of these are started in a minute.
 */
import { flushCompileCache } from 'node:module';
import { setTimeout as pause } from 'node:timers/promises';
import { attribute, createReceiver, header, type Receiver } from '../../src/index.ts';
import type { DedupStore } from '../../src/store.ts';
import { virtualWorld } from '../../src/testing/virtual-world.ts';
import type { Order } from './cell.ts';
import type { Answer, Task, Told } from './wire.ts';

const task = JSON.parse(process.argv[2]!) as Task;
const { times } = task;
const chance = virtualWorld({ seed: task.seed }).random;
const answers = new Map<number, (accepted: boolean) => void>();
let asked = 0;

export const tell = (told: Told): void => void process.send?.(told);

process.on('message', ({ ask, accepted }: Answer) => {
  answers.get(ask)?.(accepted);
  answers.delete(ask);
});
process.once('disconnect', () => process.exit());
// Node keeps compiled code at exit, which most workers don't live to see.
setTimeout(flushCompileCache, 1_500).unref();
watchStalls();

/** An effect in the ledger outside. Rejects if that refuses it. */
async function effect(order: Order, fence?: number): Promise<void> {
  const ask = asked++;
  const answer = new Promise<boolean>((resolve) => answers.set(ask, resolve));
  tell({ is: 'effect', ask, order, ...(fence !== undefined && { fence }) });
  if (!(await answer)) throw new Error('refused: the fence is stale');
}

/** A tenth throws, and some take their time, before or after the effect: there the blows fall. */
async function stumble(): Promise<void> {
  if (chance.number() < 0.1) {
    tell({ is: 'thrown' });
    throw new TypeError('now and then');
  }
}
const dawdle = async (atMostMs = 30) => void (chance.number() < 0.2 && (await pause(chance.number() * atMostMs)));

async function receiver(): Promise<Receiver> {
  const { openStore } = await import('./worker-stores.ts');
  const { store, write } = await openStore(task);
  const idOf = (event: { message: { headers?: unknown } }) => {
    const id = (event.message.headers as Record<string, unknown> | undefined)?.['message-id'];
    return String((id as { StringValue?: string })?.StringValue ?? id);
  };
  const options = {
    scope: task.name,
    key: task.broker === 'kafka' ? header('message-id') : attribute('message-id'),
    store: store as DedupStore,
    guarantee: task.mode as 'leased',
    leaseMs: times.leaseMs,
    storeTimeoutMs: times.storeTimeoutMs,
    backoff: { firstMs: 20, maxMs: 200 },
    // Killed and stopped all the time, a message may need many: only poison is meant to be parked.
    maxAttempts: 1_000_000,
    groupSize: 50,
    on: {
      claimed: (event) => tell({ is: 'claimed', id: idOf(event) }),
      completed: (event) => tell({ is: 'recorded', id: idOf(event) }),
      duplicate: (event) => tell({ is: 'duplicate', id: idOf(event) }),
      busy: () => tell({ is: 'busy' }),
      fenced: () => tell({ is: 'fenced' }),
      storeDown: () => tell({ is: 'storeDown' }),
      parked: (event) => tell({ is: 'parked', id: idOf(event), reason: event.reason }),
    },
  } satisfies Parameters<typeof createReceiver>[0];
  return createReceiver(options, async (order: Order, ctx) => {
    const { tx, fence } = ctx as { tx?: unknown; fence?: number };
    if (tx === undefined) {
      await stumble();
      // Nothing waits for it, and who is stopped here writes late: what a fence is for.
      await dawdle(100);
      await effect(order, fence);
      return await dawdle();
    }
    await write!(tx, order);
    tell({ is: 'effect', order });
    await dawdle();
    // After the effect: it has to be rolled back.
    await stumble();
  });
}

const { consume, consumeNaively } = await (task.broker === 'kafka' ? import('./worker-kafka.ts') : import('./worker-sqs.ts'));
const working = () => tell({ is: 'working' });
const end = new Promise<void>((resolve) => process.once('SIGTERM', () => resolve()));
// Half of the naive ones ack first and lose, the others ack last and double.
if (task.mode === 'naive') await consumeNaively(task, effect, task.seed % 2 === 0 ? 'ack first' : 'ack last', working, end);
else await consume(task, await receiver(), working, end);
process.disconnect?.();
process.exit();

/** Tells when this process stood still for a third of its lease: a stop, or a machine that has more to do than it can. */
function watchStalls(): void {
  let before = Date.now();
  setInterval(() => {
    const now = Date.now();
    if (now - before > times.leaseMs / 3) tell({ is: 'stalled', from: before, until: now });
    before = now;
  }, 25).unref();
}
