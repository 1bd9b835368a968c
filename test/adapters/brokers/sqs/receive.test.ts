import { describe, expect, it } from 'vitest';
import { latch } from '../../../support/stand.ts';
import { ack, bodies, rig, scripted } from './rig.ts';

describe('receiving', () => {
  it.each([
    ['the network', Object.assign(new Error('connect'), { code: 'ECONNREFUSED' })],
    ['throttling', Object.assign(new Error('slow down'), { name: 'ThrottlingException', $metadata: { httpStatusCode: 400 } })],
    ['OverLimit', Object.assign(new Error('too many in flight'), { name: 'OverLimit', $metadata: { httpStatusCode: 400 } })],
    ['a queue that is gone', Object.assign(new Error('gone'), { name: 'QueueDoesNotExist', $metadata: { httpStatusCode: 400 } })],
  ])('goes on after errors (%s), less and less often, tells them, and does not reject', async (_, error) => {
    const seen: unknown[] = [];
    const { model, queueUrl, start, world, errors, requests } = rig((payload) => void seen.push(payload));
    let down = true;
    model.intercept = (name, _request, run) => (name === 'receiveMessage' && down ? Promise.reject(error) : run());
    await start();
    await world.advance(60_000);
    const tries = requests('receiveMessage').length;
    expect(tries).toBeGreaterThan(5);
    expect(tries).toBeLessThan(20);
    expect(errors).toEqual(Array(tries).fill({ error, during: 'receive' }));
    down = false;
    model.put(queueUrl, '1');
    await world.advance(20_000);
    expect(seen).toEqual([1]);
  });

  it('gives up a receive that never gets an answer', async () => {
    const seen: unknown[] = [];
    const { model, queueUrl, start, world, errors } = rig((payload) => void seen.push(payload));
    let hangs = 1;
    model.intercept = (name, _request, run) => (name === 'receiveMessage' && hangs-- > 0 ? new Promise(() => {}) : run());
    model.put(queueUrl, '1');
    await start();
    await world.advance(24_000);
    expect(seen).toEqual([]);
    await world.advance(2_000);
    expect(seen).toEqual([1]);
    expect(errors.map(({ during }) => during)).toEqual(['receive']);
  });

  it('pauses while the store is down: nothing is received that could not be claimed', async () => {
    let ready = latch<boolean>();
    const { model, queueUrl, start, world, requests } = rig(() => {}, {
      receiver: (virtual) =>
        scripted(() => ack, virtual, {
          ready: (signal) =>
            Promise.race([ready.promise, new Promise<boolean>((resolve) => signal?.addEventListener('abort', () => resolve(false)))]),
        }),
    });
    model.put(queueUrl, '1');
    await start();
    await world.advance(60_000);
    expect(requests('receiveMessage')).toEqual([]);
    ready.open(true);
    ready = latch();
    await world.advance(10);
    expect(requests('receiveMessage')).toHaveLength(1);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('keeps no more messages in flight than it may, and waits until a receive is worth it', async () => {
    const gates = Array.from({ length: 40 }, () => latch());
    let running = 0;
    let most = 0;
    const { model, queueUrl, start, world, requests } = rig(() => {}, {
      poller: { maxInFlight: 12 },
      receiver: (virtual) =>
        scripted(async (delivery) => {
          most = Math.max(most, ++running);
          await gates[Number(delivery.message.body)]!.promise;
          running--;
          return ack;
        }, virtual),
    });
    for (let i = 0; i < 40; i++) model.put(queueUrl, String(i));
    await start();
    expect(requests('receiveMessage').map(({ MaxNumberOfMessages }) => MaxNumberOfMessages)).toEqual([10]);
    for (const gate of gates.slice(0, 3)) gate.open();
    await world.advance(10);
    expect(requests('receiveMessage')).toHaveLength(1);
    gates[3]!.open();
    await world.advance(10);
    expect(requests('receiveMessage').map(({ MaxNumberOfMessages }) => MaxNumberOfMessages)).toEqual([10, 6]);
    for (const gate of gates.slice(4)) gate.open();
    await world.advance(1_000);
    expect(most).toBeLessThanOrEqual(12);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('counts a message as in flight until SQS has been told what becomes of it', async () => {
    const { model, queueUrl, start, world, requests } = rig(() => {}, { poller: { maxInFlight: 2 } });
    for (let i = 0; i < 4; i++) model.put(queueUrl, String(i));
    const answer = latch();
    model.intercept = async (name, _request, run) => {
      if (name === 'deleteMessageBatch') await answer.promise;
      return run();
    };
    await start();
    await world.advance(1_000);
    expect(requests('receiveMessage')).toHaveLength(1);
    answer.open();
    await world.advance(1_000);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('runs several receives at once', async () => {
    const { start, requests } = rig(() => {}, { poller: { polls: 3 } });
    await start();
    expect(requests('receiveMessage')).toHaveLength(3);
  });

  it('makes no hot loop of empty answers that come at once', async () => {
    const { start, world, requests } = rig(() => {}, { poller: { waitMs: 0 } });
    await start();
    await world.advance(10_000);
    expect(requests('receiveMessage').length).toBeLessThanOrEqual(11);
  });

  it('leaves messages to their visibility, and goes on, when a receiver breaks its promise not to reject', async () => {
    const { model, queueUrl, start, world, requests, errors } = rig(() => {}, {
      receiver: (virtual) => scripted(() => ack, virtual, { process: () => Promise.reject(new Error('broken')) }),
    });
    model.put(queueUrl, 'x');
    await start();
    expect(errors.map(({ during }) => during)).toEqual(['process']);
    expect(requests('deleteMessageBatch')).toEqual([]);
    await world.advance(41_000);
    expect(model.messages(queueUrl)[0]!.receives).toBe(2);
  });
});
