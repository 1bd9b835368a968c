import { describe, expect, it } from 'vitest';
import { attribute } from '../../../../src/index.ts';
import { latch } from '../../../support/stand.ts';
import { ack, bodies, internalError, retryAfter, rig, scripted } from './rig.ts';

describe('a message of a standard queue', () => {
  it('reaches the handler with its text attributes as headers, and is deleted by its own handle once it is completed', async () => {
    const seen: unknown[] = [];
    const { model, queueUrl, requests, start } = rig((payload) => void seen.push(payload), {
      receiverOptions: { key: (message: any) => message.headers['idempotency-key'] },
    });
    model.put(queueUrl, '{"id":1}', { MessageAttributes: { 'idempotency-key': { DataType: 'String', StringValue: 'order-1' } } });
    await start();
    expect(seen).toEqual([{ id: 1 }]);
    expect(bodies(model, queueUrl)).toEqual([]);
    expect(requests('deleteMessageBatch')).toEqual([{ QueueUrl: queueUrl, Entries: [{ Id: '0', ReceiptHandle: 'message-1/1' }] }]);
  });

  it('is received with all attributes asked for, and with the visibility that was checked', async () => {
    const { requests, start, queueUrl } = rig(() => {});
    await start();
    expect(requests('receiveMessage')).toEqual([
      {
        QueueUrl: queueUrl,
        MaxNumberOfMessages: 10,
        WaitTimeSeconds: 20,
        // The queue says 30 s; twice the lease is 40 s.
        VisibilityTimeout: 40,
        MessageSystemAttributeNames: ['All'],
        MessageAttributeNames: ['All'],
      },
    ]);
  });

  it('becomes a delivery that tells when it was sent, whether it may have come before, and until when it is held', async () => {
    const seen: any[] = [];
    const { model, queueUrl, world, start } = rig(() => {}, {
      receiver: (virtual) => scripted((delivery) => (seen.push({ ...delivery, at: virtual.clock.now() }), retryAfter(0)), virtual, {}),
    });
    const sentAtMs = world.clock.wall();
    model.put(queueUrl, 'x', { MessageGroupId: 'tenant-1' });
    await start();
    expect(seen[0]).toMatchObject({ message: { id: 'message-1', body: 'x' }, sentAtMs, redelivered: false, heldUntil: 40_000 });
    // A label of a tenant (fair queues) promises no order.
    expect(seen[0].orderingKey).toBeUndefined();
    await world.advance(1_000);
    expect(seen[1]).toMatchObject({ redelivered: true });
  });

  it('that comes after a long poll is held from 5 s before its arrival at the latest, not from when the poll began', async () => {
    const held: (number | undefined)[] = [];
    const { model, queueUrl, world, start } = rig(() => {}, {
      receiver: (virtual) => scripted((delivery) => (held.push(delivery.heldUntil), ack), virtual),
    });
    await start();
    await world.advance(14_990);
    model.put(queueUrl, 'x');
    await world.advance(0);
    expect(held).toEqual([15_000 - 5_000 + 40_000]);
  });

  it('that was completed before is acked with the new handle, and its handler does not run', async () => {
    let runs = 0;
    const { model, queueUrl, world, start, requests } = rig(() => void runs++);
    model.put(queueUrl, 'null');
    // SQS answers 200 and keeps the message: "the request succeeds, but the message might not be deleted".
    let lies = 1;
    model.intercept = async (name, request, run) => {
      if (name === 'deleteMessageBatch' && lies-- > 0) return { Successful: request.Entries };
      return run();
    };
    await start();
    await world.advance(41_000);
    expect(runs).toBe(1);
    expect(requests('deleteMessageBatch').map(({ Entries }) => Entries[0].ReceiptHandle)).toEqual(['message-1/1', 'message-1/2']);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('that comes twice in one batch runs once, and both handles are deleted in one request with distinct ids', async () => {
    let runs = 0;
    const { model, queueUrl, start, requests } = rig(() => void runs++);
    model.put(queueUrl, 'null');
    model.intercept = async (name, _request, run) => {
      const answer = await run();
      if (name !== 'receiveMessage' || !answer.Messages) return answer;
      return { Messages: [answer.Messages[0], { ...answer.Messages[0], ReceiptHandle: 'a copy' }] };
    };
    await start();
    expect(runs).toBe(1);
    expect(requests('deleteMessageBatch')[0].Entries).toEqual([
      { Id: '0', ReceiptHandle: 'message-1/1' },
      { Id: '1', ReceiptHandle: 'a copy' },
    ]);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('that another worker runs is never deleted, and comes back when that lease may have ended', async () => {
    const { model, queueUrl, start, world, requests, receiver } = rig(() => new Promise(() => {}));
    void receiver.process([{ message: { id: 'message-1', body: 'null', headers: {} } }]);
    model.put(queueUrl, 'null');
    await start();
    expect(requests('deleteMessageBatch')).toEqual([]);
    const [{ Entries }] = requests('changeMessageVisibilityBatch');
    expect(Entries).toEqual([{ Id: '0', ReceiptHandle: 'message-1/1', VisibilityTimeout: expect.any(Number) }]);
    expect(Entries[0].VisibilityTimeout).toBeGreaterThanOrEqual(20);
    expect(Entries[0].VisibilityTimeout).toBeLessThanOrEqual(21);
    await world.advance(0);
    expect(bodies(model, queueUrl)).toEqual(['null']);
  });
});

describe('a message that was completed in its last allowed receive, but not deleted', () => {
  it('goes to the dead-letter queue, gets a new id by the redrive, and is known by its key', async () => {
    let runs = 0;
    const { model, queueUrl, deadUrl, start, world } = rig(() => void runs++, {
      attributes: { RedrivePolicy: '{"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:000000000000:dead","maxReceiveCount":"2"}' },
      receiverOptions: { key: attribute('idempotency-key') },
    });
    model.put(queueUrl, 'null', { MessageAttributes: { 'idempotency-key': { DataType: 'String', StringValue: 'order-1' } } });
    model.intercept = async (name, request, run) => (name === 'deleteMessageBatch' ? { Successful: request.Entries } : run());
    await start();
    await world.advance(100_000);
    expect(bodies(model, queueUrl)).toEqual([]);
    expect(model.messages(deadUrl).map(({ id }) => id)).toEqual(['message-1']);
    model.intercept = (_name, _request, run) => run();
    model.redrive(deadUrl, queueUrl);
    expect(model.messages(queueUrl).map(({ id }) => id)).toEqual(['message-2']);
    await world.advance(100);
    expect(bodies(model, queueUrl)).toEqual([]);
    expect(runs).toBe(1);
  });
});

describe('a failed message', () => {
  it('is hidden for as long as its verdict says, in seconds rounded up, and comes again', async () => {
    const at: number[] = [];
    const { model, queueUrl, start, world, requests } = rig(() => {}, {
      receiver: (virtual) => scripted(() => (at.push(virtual.clock.now()), at.length === 1 ? retryAfter(6_200) : ack), virtual),
    });
    model.put(queueUrl, 'x');
    await start();
    await world.advance(10_000);
    expect(requests('changeMessageVisibilityBatch')[0].Entries).toEqual([{ Id: '0', ReceiptHandle: 'message-1/1', VisibilityTimeout: 7 }]);
    expect(at).toEqual([0, 7_005]);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('is not hidden for more than is left of the 12 hours that SQS allows', async () => {
    const { model, queueUrl, start, world, requests } = rig(() => {}, {
      receiver: (virtual) =>
        scripted(() => new Promise((resolve) => virtual.clock.after(5_000_500, () => resolve(retryAfter(43_200_000)))), virtual),
    });
    model.put(queueUrl, 'x');
    model.intercept = (name, _request, run) =>
      name === 'receiveMessage' && model.log.filter((each) => each.name === name).length > 1 ? new Promise(() => {}) : run();
    await start();
    await world.advance(5_001_000);
    expect(requests('changeMessageVisibilityBatch')[0].Entries[0].VisibilityTimeout).toBe(43_200 - 5_001);
  });
});

describe('deletes', () => {
  it('linger for 5 ms unless there are ten, and gather to batches of ten while a request is under way', async () => {
    const gates = Array.from({ length: 25 }, () => latch());
    const answers = latch();
    const { model, queueUrl, start, world, requests } = rig(() => {}, {
      receiver: (virtual) => scripted((delivery) => gates[Number(delivery.message.body)]!.promise.then(() => ack), virtual),
      poller: { maxInFlight: 100 },
    });
    for (let i = 0; i < 25; i++) model.put(queueUrl, String(i));
    let hold = true;
    model.intercept = async (name, _request, run) => {
      const answer = await run();
      if (name === 'deleteMessageBatch' && hold) await answers.promise;
      return answer;
    };
    await start();
    const sizes = () => requests('deleteMessageBatch').map(({ Entries }) => Entries.length);
    gates[0]!.open();
    await world.advance(4);
    expect(sizes()).toEqual([]);
    await world.advance(1);
    expect(sizes()).toEqual([1]);
    for (const gate of gates.slice(1, 15)) gate.open();
    await world.advance(100);
    expect(sizes()).toEqual([1]);
    hold = false;
    answers.open();
    await world.settle();
    expect(sizes()).toEqual([1, 10, 4]);
    for (const gate of gates.slice(15)) gate.open();
    await world.settle();
    expect(sizes()).toEqual([1, 10, 4, 10]);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('that are refused in an answer with status 200 are tried again, and only they', async () => {
    const { model, queueUrl, start, world, requests, errors } = rig(() => {});
    for (let i = 0; i < 3; i++) model.put(queueUrl, String(i));
    let refusals = 2;
    model.intercept = async (name, request, run) => {
      if (name !== 'deleteMessageBatch' || refusals-- <= 0) return run();
      const second = (entry: any) => entry.ReceiptHandle === 'message-2/1';
      request = { ...request, Entries: request.Entries.filter((entry: any) => !second(entry)) };
      if (request.Entries.length > 0)
        for (const { ReceiptHandle } of request.Entries)
          (model.messages(queueUrl) as any[]).splice(bodies(model, queueUrl).indexOf(String(Number(ReceiptHandle[8]) - 1)), 1);
      return internalError(model.log.at(-1)!.request, second);
    };
    await start();
    await world.advance(2_000);
    expect(requests('deleteMessageBatch').map(({ Entries }) => Entries.map(({ ReceiptHandle }: any) => ReceiptHandle))).toEqual([
      ['message-1/1', 'message-2/1', 'message-3/1'],
      ['message-2/1'],
      ['message-2/1'],
    ]);
    expect(bodies(model, queueUrl)).toEqual([]);
    expect(errors.map(({ during }) => during)).toEqual(['delete', 'delete']);
  });

  it('whose request is lost, whose answer is lost, or whose answer names no entry are tried again', async () => {
    const { model, queueUrl, start, world, requests, errors } = rig(() => {});
    model.put(queueUrl, 'null');
    const faults = [
      () => Promise.reject(Object.assign(new Error('reset'), { code: 'ECONNRESET' })),
      () => Promise.resolve({}),
      async (run: () => Promise<unknown>) => (await run(), Promise.reject(new Error('socket hang up'))),
    ];
    model.intercept = (name, _request, run) => (name === 'deleteMessageBatch' ? (faults.shift()?.(run) ?? run()) : run());
    await start();
    await world.advance(5_000);
    expect(requests('deleteMessageBatch')).toHaveLength(4);
    expect(errors.map(({ during }) => during)).toEqual(['delete', 'delete']);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('that never get an answer are given up after their time, and tried again', async () => {
    const { model, queueUrl, start, world, requests } = rig(() => {}, { poller: { requestMs: 3_000 } });
    model.put(queueUrl, 'null');
    let hangs = 1;
    model.intercept = (name, _request, run) => (name === 'deleteMessageBatch' && hangs-- > 0 ? new Promise(() => {}) : run());
    await start();
    await world.advance(2_900);
    expect(requests('deleteMessageBatch')).toHaveLength(1);
    await world.advance(400);
    expect(requests('deleteMessageBatch')).toHaveLength(2);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it.each([
    ['ReceiptHandleIsInvalid', ''],
    ['MessageNotInflight', ''],
    ['AWS.SimpleQueueService.MessageNotInflight', ''],
    ['InvalidParameterValue', 'Value AQ for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.'],
  ])('that say that the delivery is not ours any more (%s) are not tried again', async (Code, Message) => {
    const { model, queueUrl, start, world, requests, errors } = rig(() => {});
    model.put(queueUrl, 'null');
    model.intercept = async (name, _request, run) =>
      name === 'deleteMessageBatch' ? { Failed: [{ Id: '0', Code, Message, SenderFault: true }] } : run();
    await start();
    await world.advance(30_000);
    expect(requests('deleteMessageBatch')).toHaveLength(1);
    expect(errors).toEqual([]);
  });
});
