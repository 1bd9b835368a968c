import { ReceiverError } from './errors.ts';

/**
 * Turns concurrent calls into batches without a timer: an idle coalescer sends at once; what arrives while a batch is under way is sent
 * together when it returns. So a single call pays no extra latency, and under load a batch grows with the latency of the store.
 *
 * A batch that rejects rejects each of its calls, and so does one whose answers are not as many as its items. `send` must answer in the order
 * asked. `atOnce` batches may be under way at the same time.
 */
export function coalesce<In, Out>(
  send: (batch: In[]) => Promise<readonly Out[]>,
  options: { readonly maxBatch: number; readonly atOnce?: number | undefined },
): (items: readonly In[]) => Promise<Out[]> {
  let waiting: Call<In, Out>[] = [];
  let underWay = 0;

  function take(): Call<In, Out>[] {
    let size = 0;
    let count = 0;
    // A call is never split, so that its items stay in one transaction of the store; one that is larger than maxBatch goes alone.
    while (count < waiting.length && (count === 0 || size + waiting[count]!.items.length <= options.maxBatch)) {
      size += waiting[count]!.items.length;
      count++;
    }
    const taken = waiting.slice(0, count);
    waiting = waiting.slice(count);
    return taken;
  }

  async function drain(): Promise<void> {
    underWay++;
    // Calls of the same turn of the event loop go together.
    await null;
    while (waiting.length > 0) {
      const calls = take();
      try {
        const items = calls.flatMap((call) => call.items);
        const answers = await send(items);
        if (answers.length !== items.length) throw new ReceiverError('store', `Expected ${items.length} answers, got ${answers.length}`);
        let at = 0;
        for (const call of calls) {
          call.resolve(answers.slice(at, at + call.items.length));
          at += call.items.length;
        }
      } catch (error) {
        for (const call of calls) call.reject(error);
      }
    }
    underWay--;
  }

  return (items) => {
    if (items.length === 0) return Promise.resolve([]);
    return new Promise((resolve, reject) => {
      waiting.push({ items, resolve, reject });
      if (underWay < (options.atOnce ?? 1)) void drain();
    });
  };
}

interface Call<In, Out> {
  readonly items: readonly In[];
  resolve(answers: Out[]): void;
  reject(error: unknown): void;
}
