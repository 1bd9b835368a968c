import { describe, expect, it } from 'vitest';
import type { Verdict } from '../../../../src/index.ts';
import { latch } from '../../../support/stand.ts';
import { ack, bodies, retryAfter, rig, scripted } from './rig.ts';

const group = (name: string) => ({ MessageGroupId: name });
const handles = (request: any) => request.Entries.map(({ ReceiptHandle }: any) => ReceiptHandle);

describe('a FIFO group', () => {
  it('is handled in its order, by the real receiver, while another group runs beside it', async () => {
    const seen: string[] = [];
    const slow = latch();
    const { model, queueUrl, start, world } = rig(
      async (payload) => {
        if (payload === 'a1') await slow.promise;
        seen.push(payload);
      },
      { fifo: true },
    );
    for (const name of ['a1', 'a2', 'a3', 'b1', 'b2']) model.put(queueUrl, JSON.stringify(name), group(name[0]!));
    await start();
    expect(seen).toEqual(['b1', 'b2']);
    slow.open();
    await world.advance(10);
    expect(seen).toEqual(['b1', 'b2', 'a1', 'a2', 'a3']);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('stops at its first failure, and comes again in its order, all of it in one request; other groups go on', async () => {
    const seen: string[] = [];
    let fails = 1;
    const { model, queueUrl, start, world, requests } = rig(
      (payload) => {
        seen.push(payload);
        if (payload === 'a2' && fails-- > 0) throw new Error('not now');
      },
      { fifo: true, receiverOptions: { backoff: { firstMs: 4_000, maxMs: 4_000 } } },
    );
    for (const name of ['a1', 'a2', 'a3', 'a4', 'b1']) model.put(queueUrl, JSON.stringify(name), group(name[0]!));
    await start();
    expect(seen.filter((name) => name[0] === 'a')).toEqual(['a1', 'a2']);
    expect(bodies(model, queueUrl)).toEqual(['"a2"', '"a3"', '"a4"']);
    const changes = requests('changeMessageVisibilityBatch');
    expect(changes.map(handles)).toEqual([['message-2/1', 'message-3/1', 'message-4/1']]);
    // SQS hides the tail behind its head, so that only the head's delay counts.
    expect(changes[0].Entries.map(({ VisibilityTimeout }: any) => VisibilityTimeout)).toEqual([expect.any(Number), 0, 0]);
    expect(changes[0].Entries[0].VisibilityTimeout).toBeGreaterThan(1);
    await world.advance(5_000);
    expect(seen.filter((name) => name[0] === 'a')).toEqual(['a1', 'a2', 'a2', 'a3', 'a4']);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('is acked as a contiguous prefix only, whatever a receiver says of what comes behind a failure', async () => {
    const verdicts: Record<string, Verdict> = {
      m1: ack,
      m2: retryAfter(3_000),
      m3: ack,
      m4: { action: 'dead-letter', reason: 'invalid-key', detail: '', attempts: 0 },
    };
    const { model, queueUrl, start, requests } = rig(() => {}, {
      fifo: true,
      receiver: (world) => scripted((delivery) => verdicts[delivery.message.body as string]!, world),
    });
    for (const name of ['m1', 'm2', 'm3', 'm4']) model.put(queueUrl, name, group('g'));
    await start();
    expect(requests('deleteMessageBatch').map(handles)).toEqual([['message-1/1']]);
    expect(requests('changeMessageVisibilityBatch').map(handles)).toEqual([['message-2/1', 'message-3/1', 'message-4/1']]);
    expect(bodies(model, queueUrl)).toEqual(['m2', 'm3', 'm4']);
  });

  it('is acked in its order, even if a later verdict is known earlier', async () => {
    const first = latch();
    const { model, queueUrl, start, requests, world } = rig(() => {}, {
      fifo: true,
      receiver: (virtual) => scripted(async (delivery) => (delivery.message.body === 'm1' && (await first.promise), ack), virtual),
    });
    for (const name of ['m1', 'm2']) model.put(queueUrl, name, group('g'));
    await start();
    expect(requests('deleteMessageBatch')).toEqual([]);
    first.open();
    await world.advance(10);
    expect(requests('deleteMessageBatch').map(handles)).toEqual([['message-1/1', 'message-2/1']]);
  });

  it('is given back only when none of it is running any more', async () => {
    const slow = latch();
    const { model, queueUrl, start, requests, world } = rig(() => {}, {
      fifo: true,
      receiver: (virtual) =>
        scripted(async (delivery) => {
          if (delivery.message.body === 'm1') return retryAfter(2_000);
          await slow.promise;
          return ack;
        }, virtual),
    });
    for (const name of ['m1', 'm2']) model.put(queueUrl, name, group('g'));
    await start();
    expect(requests('changeMessageVisibilityBatch')).toEqual([]);
    slow.open();
    await world.advance(10);
    expect(requests('changeMessageVisibilityBatch').map(handles)).toEqual([['message-1/1', 'message-2/1']]);
    expect(requests('deleteMessageBatch')).toEqual([]);
  });

  it('is given back in one request even if that request is not full then', async () => {
    const failing = latch();
    const { model, queueUrl, start, requests, world } = rig(
      async () => {
        await failing.promise;
        throw new Error('not now');
      },
      { fifo: true },
    );
    for (let i = 1; i <= 6; i++) model.put(queueUrl, String(i), group('a'));
    await start();
    for (let i = 1; i <= 6; i++) model.put(queueUrl, String(i), group('b'));
    await world.advance(10);
    failing.open();
    await world.advance(10);
    expect(requests('changeMessageVisibilityBatch').map(({ Entries }) => Entries.length)).toEqual([6, 6]);
  });

  it('whose delete is refused because its visibility had ended comes again, is known, and is acked in order', async () => {
    const seen: string[] = [];
    const { model, queueUrl, start, world, errors } = rig((payload) => void seen.push(payload), { fifo: true });
    for (const name of ['m1', 'm2']) model.put(queueUrl, JSON.stringify(name), group('g'));
    let late = true;
    model.intercept = async (name, _request, run) => {
      if (name !== 'deleteMessageBatch' || !late) return run();
      late = false;
      for (const message of model.messages(queueUrl)) message.visibleAt = world.clock.now();
      return run();
    };
    await start();
    await world.advance(60_000);
    expect(seen).toEqual(['m1', 'm2']);
    expect(bodies(model, queueUrl)).toEqual([]);
    expect(errors).toEqual([]);
  });
});

describe('a receive of a FIFO queue', () => {
  it('has an attempt id that all its tries share and no other receive has', async () => {
    const { model, queueUrl, start, world, requests } = rig(() => {}, { fifo: true, poller: { polls: 2 } });
    let lost = 0;
    model.intercept = async (name, _request, run) => {
      if (name === 'receiveMessage' && lost++ < 2) throw Object.assign(new Error('reset'), { code: 'ECONNRESET' });
      return run();
    };
    await start();
    await world.advance(500);
    const ids = requests('receiveMessage').map(({ ReceiveRequestAttemptId: id }) => id);
    expect(ids).toHaveLength(4);
    expect(new Set(ids.slice(0, 2))).toEqual(new Set(ids.slice(2)));
    expect(new Set(ids).size).toBe(2);
    await world.advance(25_000);
    expect(
      new Set(
        requests('receiveMessage')
          .slice(4)
          .map(({ ReceiveRequestAttemptId: id }) => ids.includes(id)),
      ),
    ).toEqual(new Set([false]));
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('whose answer is lost gets the same messages with its next try, instead of waiting for their visibility to end', async () => {
    const seen: [string, number][] = [];
    const { model, queueUrl, start, world } = rig((payload) => void seen.push([payload, world.clock.now()]), { fifo: true });
    model.put(queueUrl, '"m1"', group('g'));
    let lost = false;
    model.intercept = async (name, _request, run) => {
      const answer = await run();
      if (name !== 'receiveMessage' || lost) return answer;
      lost = true;
      throw Object.assign(new Error('reset'), { code: 'ECONNRESET' });
    };
    await start();
    await world.advance(1_000);
    expect(seen).toEqual([['m1', expect.any(Number)]]);
    expect(seen[0]![1]).toBeLessThan(200);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('takes a fresh attempt id when the messages of the old one may be somebody else’s by now', async () => {
    const { model, start, world, requests } = rig(() => {}, { fifo: true, poller: { requestMs: 60_000 } });
    model.intercept = async (name, _request, run) => (name === 'receiveMessage' ? new Promise(() => {}) : run());
    await start();
    await world.advance(81_000);
    const ids = requests('receiveMessage').map(({ ReceiveRequestAttemptId: id }) => id);
    expect(ids).toHaveLength(2);
    expect(ids[0]).not.toBe(ids[1]);
  });
});
