import { describe, expect, it } from 'vitest';
import type { Delivery, Source } from '../../../../src/index.ts';
import { latch } from '../../../support/stand.ts';
import { ack, bodies, internalError, rig, scripted } from './rig.ts';

describe('the hold on deliveries', () => {
  it('is extended with the lease while a handler runs, so that nobody else gets the message', async () => {
    let runs = 0;
    const slow = latch();
    const { model, queueUrl, start, world, requests } = rig(
      async () => {
        runs++;
        await slow.promise;
      },
      { receiverOptions: { handlerTimeoutMs: 600_000 } },
    );
    model.put(queueUrl, 'null');
    await start();
    await world.advance(200_000);
    expect(runs).toBe(1);
    expect(model.messages(queueUrl)[0]!.receives).toBe(1);
    expect(requests('changeMessageVisibilityBatch')[0].Entries).toEqual([{ Id: '0', ReceiptHandle: 'message-1/1', VisibilityTimeout: 40 }]);
    slow.open();
    await world.advance(10);
    expect(bodies(model, queueUrl)).toEqual([]);
    expect(model.messages(queueUrl)).toEqual([]);
  });

  it('is extended for messages that wait for their turn too', async () => {
    const seen: unknown[] = [];
    const slow = latch();
    const { model, queueUrl, start, world } = rig(
      async (payload) => {
        seen.push(payload);
        if (payload === 1) await slow.promise;
      },
      { receiverOptions: { concurrency: 1, handlerTimeoutMs: 600_000 } },
    );
    for (const body of ['1', '2', '3']) model.put(queueUrl, body);
    await start();
    await world.advance(120_000);
    expect(seen).toEqual([1]);
    expect(model.messages(queueUrl).map(({ receives }) => receives)).toEqual([1, 1, 1]);
    slow.open();
    await world.advance(10);
    expect(seen).toEqual([1, 2, 3]);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('does not overtake the change of visibility that a verdict asks for', async () => {
    const failing = latch();
    const { model, queueUrl, start, world, requests } = rig(async () => {
      await failing.promise;
      throw new Error('not now');
    });
    model.put(queueUrl, 'null');
    let beats = 0;
    model.intercept = async (name, _request, run) => {
      // The heartbeat is on its way for 2 s.
      if (name === 'changeMessageVisibilityBatch' && beats++ === 0) await new Promise<void>((resolve) => world.clock.after(2_000, resolve));
      return run();
    };
    await start();
    await world.advance(6_700);
    expect(beats).toBe(1);
    failing.open();
    await world.advance(4_000);
    expect(requests('changeMessageVisibilityBatch').map(({ Entries }) => Entries[0].VisibilityTimeout)).toEqual([
      40,
      1,
      expect.any(Number),
    ]);
    expect(model.messages(queueUrl)[0]!.receives).toBe(2);
  });

  it('that SQS has ended aborts the handler, and the message is not deleted', async () => {
    let signal!: AbortSignal;
    const { model, queueUrl, start, world, requests } = rig(
      (_, ctx) => {
        signal = ctx.signal;
        return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
      },
      { fifo: true },
    );
    model.put(queueUrl, 'null', { MessageGroupId: 'g' });
    await start();
    model.intercept = async (name, _request, run) => {
      if (name === 'receiveMessage') return new Promise(() => {});
      if (name === 'changeMessageVisibilityBatch') model.messages(queueUrl)[0]!.visibleAt = world.clock.now();
      return run();
    };
    await world.advance(10_000);
    expect(signal.aborted).toBe(true);
    expect(requests('deleteMessageBatch')).toEqual([]);
    expect(bodies(model, queueUrl)).toEqual(['null']);
  });

  it('that has ended before its turn came is not used: the handler is not started', async () => {
    const seen: unknown[] = [];
    const slow = latch();
    const { model, queueUrl, start, world } = rig(
      async (payload) => {
        seen.push(payload);
        if (payload === 1) await slow.promise;
      },
      { receiverOptions: { concurrency: 1, handlerTimeoutMs: 600_000 } },
    );
    for (const body of ['1', '2']) model.put(queueUrl, body);
    model.intercept = (name, _request, run) =>
      name === 'changeMessageVisibilityBatch' || model.log.filter((each) => each.name === 'receiveMessage').length > 1
        ? new Promise(() => {})
        : run();
    await start();
    await world.advance(60_000);
    slow.open();
    await world.advance(1_000);
    expect(seen).toEqual([1]);
  });

  /** Asks for a hold, in a receiver's place, and answers what came of it. */
  async function heldAfter(count: number, answer: (request: any, run: () => Promise<any>) => Promise<any>, waitMs = 0) {
    let held: Promise<unknown> | undefined;
    const { model, queueUrl, start, world, requests, errors } = rig(() => {}, {
      poller: { maxInFlight: 100, visibilityMs: 60_000 },
      receiver: (virtual) =>
        scripted(() => ack, virtual, {
          process: async (deliveries: readonly Delivery[], source: Source = {}) => {
            if (waitMs > 0) await new Promise<void>((resolve) => virtual.clock.after(waitMs, resolve));
            held = source.hold!(deliveries, 20_000);
            held.catch(() => {});
            return deliveries.map(() => ack);
          },
        } as never),
    });
    for (let i = 0; i < count; i++) model.put(queueUrl, String(i));
    model.intercept = (name, request, run) =>
      name === 'changeMessageVisibilityBatch'
        ? answer(request, run)
        : name === 'receiveMessage' && model.log.filter((each) => each.name === name).length > 1
          ? new Promise(() => {})
          : run();
    await start();
    await world.advance(waitMs + 6_000);
    return { held: await held, requests: requests('changeMessageVisibilityBatch'), errors };
  }

  it('tells of each delivery whether it was extended, lost, or unknown', async () => {
    const { held, requests, errors } = await heldAfter(3, async (request) => ({
      Successful: [{ Id: request.Entries[0].Id }],
      Failed: [
        { Id: '1', Code: 'ReceiptHandleIsInvalid', SenderFault: true },
        { Id: '2', Code: 'InternalError', SenderFault: false },
      ],
    }));
    expect(held).toEqual([true, false, undefined]);
    expect(requests).toHaveLength(1);
    expect(requests[0].Entries[0].VisibilityTimeout).toBe(60);
    expect(errors.map(({ during }) => during)).toEqual(['visibility']);
  });

  it('is unknown, not lost, when the request fails or never gets an answer', async () => {
    expect((await heldAfter(1, () => Promise.reject(new Error('reset')))).held).toEqual([undefined]);
    expect((await heldAfter(1, () => new Promise(() => {}))).held).toEqual([undefined]);
    expect((await heldAfter(2, async (request) => internalError(request, () => true))).held).toEqual([undefined, undefined]);
  });

  it('ends with the 12 hours that SQS allows, without asking', async () => {
    const hours12 = 43_200_000;
    expect((await heldAfter(1, (_, run) => run(), hours12 - 25_000)).held).toEqual([true]);
    const { held, requests } = await heldAfter(1, (_, run) => run(), hours12 - 15_000);
    expect(held).toEqual([false]);
    expect(requests).toEqual([]);
  });

  it('is never taken for longer than the whole seconds that are left of those 12 hours', async () => {
    const hours12 = 43_200_000;
    for (const leftMs of [20_002, 20_400, 20_999]) {
      const { held, requests } = await heldAfter(1, (_, run) => run(), hours12 - leftMs);
      const hiddenMs = requests[0] ? requests[0].Entries[0].VisibilityTimeout * 1_000 : 0;
      expect({ leftMs, trusted: held, isEnough: hiddenMs >= 20_000 }).toEqual({ leftMs, trusted: [false], isEnough: false });
    }
    const { held, requests } = await heldAfter(1, (_, run) => run(), hours12 - 21_500);
    expect({ held, hiddenFor: requests[0].Entries[0].VisibilityTimeout }).toEqual({ held: [true], hiddenFor: 21 });
  });
});
