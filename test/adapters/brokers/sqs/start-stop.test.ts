import { describe, expect, it } from 'vitest';
import { sqsPoller } from '../../../../adapters/brokers/sqs/index.ts';
import { memoryStore } from '../../../../adapters/stores/memory.ts';
import { createReceiver, messageId, TerminalError } from '../../../../src/index.ts';
import { virtualWorld } from '../../../../src/testing/virtual-world.ts';
import { latch, watch } from '../../../support/stand.ts';
import { sqsModel } from './model.ts';
import { bodies, type RigOptions, rig } from './rig.ts';

const days = 86_400_000;

describe('the options of a poller', () => {
  const world = virtualWorld();
  const client = sqsModel(world.clock);
  const queueUrl = client.createQueue('work');
  const receiver = createReceiver({ scope: 's', key: messageId(), store: memoryStore(), world, leaseMs: 30_000 }, () => {});
  const valid = { client, queueUrl, receiver };

  it.each([
    [{ client: {} as never }, 'Expected `client` to be an `SQS` or `SQSClient` of @aws-sdk/client-sqs'],
    [{ queueUrl: 'work' }, 'Expected `queueUrl` to be the URL of a queue, got `"work"`'],
    [{ queueUrl: 'https://sqs/0/work.fifo/' }, 'nothing behind its name'],
    [{ receiver: undefined as never }, 'Expected `receiver` to be a receiver made by `createReceiver`'],
    [{ receiver: { ...receiver, leaseMs: 43_200_000 } }, 'Expected `receiver.leaseMs` to be less than 43200000, the 12 hours'],
    [{ visibilityMs: 30_000 }, "Expected `visibilityMs` to be more than the receiver's `leaseMs`, which is 30000, got `30000` (number)"],
    [{ visibilityMs: 43_201_000 }, 'Expected `visibilityMs` to be a number from 1000 to 43200000'],
    [{ visibilityMs: 40_500 }, 'Expected `visibilityMs` to be whole seconds'],
    [{ waitMs: 20_001 }, 'Expected `waitMs` to be a number from 0 to 20000'],
    [{ polls: 0 }, 'Expected `polls` to be a whole number from 1 to 100'],
    [{ maxInFlight: 0.5 }, 'Expected `maxInFlight` to be a whole number from 1 to 120000'],
    [{ deadLetter: { queueUrl } }, 'Expected `deadLetter.queueUrl` to be another queue'],
    [{ deadLetter: {} as never }, 'Expected `deadLetter.queueUrl` to be the URL of a queue'],
    [{ horizonMs: -1 }, 'Expected `horizonMs` to be a number of 0 or more'],
  ])('are checked at construction: %o', (wrong, message) => {
    expect(() => sqsPoller({ ...valid, ...wrong })).toThrow(
      expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining(message) }),
    );
  });
});

describe('the settings of a queue', () => {
  async function startError(options: RigOptions): Promise<unknown> {
    const { poller, world, model } = rig(() => {}, options);
    const run = watch(poller.run());
    await world.advance(100);
    expect(run.done).toBe(true);
    expect(model.log.some(({ name }) => name === 'receiveMessage')).toBe(false);
    expect(world.timers).toBe(0);
    return run.error;
  }

  it.each<[string, RigOptions, string, string]>([
    [
      'no RedrivePolicy to leave dead letters to',
      { noRedrive: true },
      'broker',
      "to have a RedrivePolicy, because `deadLetter` is 'redrive', got none",
    ],
    [
      'maxReceiveCount 1',
      { attributes: { RedrivePolicy: '{"deadLetterTargetArn":"a:b:c:d:e:dead","maxReceiveCount":"1"}' } },
      'broker',
      'to be 2 or more, got 1',
    ],
    ['a RedrivePolicy that is none', { attributes: { RedrivePolicy: '{' } }, 'broker', 'Expected RedrivePolicy'],
    ['no VisibilityTimeout', { attributes: { VisibilityTimeout: '' } }, 'broker', 'to have VisibilityTimeout in seconds, got ""'],
    [
      'more retention than the store has',
      { attributes: { MessageRetentionPeriod: '1209600' } },
      'retention-too-short',
      // The dead-letter queue keeps messages 4 days, with their time of sending; a redriven one has 14 days again.
      `to be at least ${18 * days} (https://sqs.eu-west-1.amazonaws.com/000000000000/work: 4 d in it, 14 d after a redrive)`,
    ],
    [
      'more retention than the store has, on a FIFO queue, whose dead-letter queue starts anew',
      { fifo: true, receiverOptions: { retentionMs: 11 * days } },
      'retention-too-short',
      `to be at least ${12 * days}`,
    ],
    [
      'a dead-letter queue without redrive: only the queue’s own retention counts',
      { noRedrive: true, receiverOptions: { retentionMs: 3 * days }, poller: { deadLetter: { queueUrl: 'https://sqs/0/x' } } },
      'retention-too-short',
      `to be at least ${4 * days}`,
    ],
  ])('that make the promise impossible are refused at start: %s', async (_, options, code, message) => {
    expect(await startError(options)).toMatchObject({ name: 'ReceiverError', code, message: expect.stringContaining(message) });
  });

  it('may be overruled by a horizon that the user answers for', async () => {
    const { start, requests } = rig(() => {}, { attributes: { MessageRetentionPeriod: '1209600' }, poller: { horizonMs: 14 * days } });
    await start();
    expect(requests('receiveMessage')).toHaveLength(1);
  });

  it('that can’t be read stop the start: the queue does not exist, or may not be read', async () => {
    const world = virtualWorld();
    const client = sqsModel(world.clock);
    const receiver = createReceiver({ scope: 's', key: messageId(), store: memoryStore(), world }, () => {});
    const run = watch(sqsPoller({ client, queueUrl: 'https://sqs/0/none', receiver }).run());
    await world.advance(100);
    expect(run.error).toMatchObject({
      code: 'broker',
      message: expect.stringContaining('QueueDoesNotExist'),
      cause: { name: 'QueueDoesNotExist' },
    });
  });

  it('are asked for again while the service can’t be reached', async () => {
    const { start, world, model, requests, errors } = rig(() => {});
    let down = true;
    model.intercept = (_name, _request, run) =>
      down ? Promise.reject(Object.assign(new Error('connect'), { code: 'ECONNREFUSED' })) : run();
    await start();
    await world.advance(5_000);
    expect(requests('receiveMessage')).toEqual([]);
    down = false;
    await world.advance(20_000);
    expect(requests('receiveMessage')).toHaveLength(1);
    expect(new Set(errors.map(({ during }) => during))).toEqual(new Set(['start']));
  });

  it('of a dead-letter queue that may not be read are told, and don’t stop the start', async () => {
    const { start, model, requests, errors } = rig(() => {});
    model.intercept = (name, _request, run) =>
      name === 'getQueueUrl'
        ? Promise.reject(Object.assign(new Error('no'), { name: 'AccessDenied', $metadata: { httpStatusCode: 403 } }))
        : run();
    await start();
    expect(requests('receiveMessage')).toHaveLength(1);
    expect(errors).toEqual([
      {
        during: 'start',
        error: expect.objectContaining({ code: 'broker', message: expect.stringContaining('arn:aws:sqs:eu-west-1:000000000000:dead') }),
      },
    ]);
  });

  it('give the visibility by default: the queue’s own if it is longer than twice the lease', async () => {
    const { start, requests } = rig(() => {}, { attributes: { VisibilityTimeout: '300' } });
    await start();
    expect(requests('receiveMessage')[0].VisibilityTimeout).toBe(300);
  });
});

describe('stopping', () => {
  it('cancels the waiting receive, lets handlers finish, deletes what they did, gives back the rest at once, and leaves no timer', async () => {
    const slow = latch();
    const seen: unknown[] = [];
    const { model, queueUrl, start, world, poller, requests } = rig(
      async (payload) => {
        seen.push(payload);
        await slow.promise;
      },
      { receiverOptions: { concurrency: 2 } },
    );
    for (const body of ['1', '2', '3', '4']) model.put(queueUrl, body);
    await start();
    const aborted = watch(poller.stop());
    await world.advance(100);
    // Not started: visible again at once.
    expect(
      requests('changeMessageVisibilityBatch').flatMap(({ Entries }) => Entries.map(({ VisibilityTimeout }: any) => VisibilityTimeout)),
    ).toEqual([0, 0]);
    expect(aborted.done).toBe(false);
    slow.open();
    await world.advance(10);
    expect(aborted.value).toEqual({ abandoned: 0 });
    expect(seen).toEqual([1, 2]);
    expect(bodies(model, queueUrl)).toEqual(['3', '4']);
    expect(requests('receiveMessage')).toHaveLength(2);
    expect(world.timers).toBe(0);
  });

  it('follows the signal that was given to `run`, which resolves when it is done', async () => {
    const { model, queueUrl, world, poller } = rig(() => {});
    const signal = new AbortController();
    const run = watch(poller.run(signal.signal));
    model.put(queueUrl, '1');
    await world.advance(10);
    signal.abort();
    await world.advance(10);
    expect(run).toEqual({ done: true, value: undefined });
    expect(world.timers).toBe(0);
    model.put(queueUrl, '2');
    await world.advance(30_000);
    expect(bodies(model, queueUrl)).toEqual(['2']);
  });

  it('follows a receiver that is stopped by somebody else', async () => {
    const { world, poller, receiver } = rig(() => {});
    const run = watch(poller.run());
    await world.advance(10);
    void receiver.stop();
    await world.advance(21_000);
    expect(run.done).toBe(true);
    expect(world.timers).toBe(0);
  });

  it('counts handlers that ignore their signal as abandoned, and does not delete their messages', async () => {
    const { model, queueUrl, start, world, poller, requests } = rig(() => new Promise(() => {}));
    model.put(queueUrl, '1');
    await start();
    const stopped = watch(poller.stop({ graceMs: 500 }));
    await world.advance(10_000);
    expect(stopped.value).toEqual({ abandoned: 0 + 1 });
    expect(requests('deleteMessageBatch')).toEqual([]);
    expect(world.timers).toBe(0);
  });

  it('flushes deletes that are being tried again, and gives up after 5 s', async () => {
    const { model, queueUrl, start, world, poller } = rig(() => {});
    model.put(queueUrl, '1');
    let down = true;
    model.intercept = (name, _request, run) => (name === 'deleteMessageBatch' && down ? Promise.reject(new Error('reset')) : run());
    await start();
    const stopped = watch(poller.stop());
    await world.advance(1_000);
    expect(stopped.done).toBe(false);
    down = false;
    await world.advance(2_000);
    expect(stopped.done).toBe(true);
    expect(bodies(model, queueUrl)).toEqual([]);

    const other = rig(() => {});
    other.model.put(other.queueUrl, '1');
    other.model.intercept = (name, _request, run) => (name === 'deleteMessageBatch' ? new Promise(() => {}) : run());
    await other.start();
    const given = watch(other.poller.stop());
    await other.world.advance(5_100);
    expect(given.done).toBe(true);
    expect(other.world.timers).toBe(0);
  });

  it('leaves no timer behind when it gives up on a dead letter', async () => {
    const refuse = () => {
      throw new TerminalError('never');
    };
    const { model, queueUrl, deadUrl, start, world, poller } = rig(refuse, {
      noRedrive: true,
      poller: { deadLetter: { queueUrl: 'https://sqs.eu-west-1.amazonaws.com/000000000000/dead' } },
    });
    model.put(queueUrl, '1');
    model.intercept = (name, _request, run) => (name === 'sendMessageBatch' ? new Promise(() => {}) : run());
    await start();
    const stopped = watch(poller.stop());
    await world.advance(5_001);
    expect(stopped.done).toBe(true);
    expect(world.timers).toBe(0);
    expect([bodies(model, queueUrl), bodies(model, deadUrl)]).toEqual([['1'], []]);
  });

  it('drains a receiver that is shared, and does not stop it', async () => {
    const slow = latch();
    const { model, queueUrl, start, world, poller, receiver } = rig(() => slow.promise, { poller: { stopReceiver: false } });
    model.put(queueUrl, '1');
    await start();
    const stopped = watch(poller.stop());
    await world.advance(1_000);
    expect(stopped.done).toBe(false);
    slow.open();
    await world.advance(100);
    expect(stopped.value).toEqual({ abandoned: 0 });
    expect(bodies(model, queueUrl)).toEqual([]);
    expect(await receiver.ready()).toBe(true);
  });

  it('is the end: a poller runs once', async () => {
    const { poller, world } = rig(() => {});
    const run = poller.run();
    await expect(poller.run()).rejects.toMatchObject({ code: 'stopped' });
    await world.advance(10);
    void poller.stop();
    await world.advance(10);
    await run;
    await expect(poller.run()).rejects.toMatchObject({ code: 'stopped' });
  });

  it('survives hooks that throw', async () => {
    const { model, queueUrl, start, world } = rig(() => {}, {
      poller: {
        onError: () => {
          throw new Error('logger');
        },
      },
    });
    let down = 1;
    model.intercept = (name, _request, run) => (name === 'receiveMessage' && down-- > 0 ? Promise.reject(new Error('x')) : run());
    model.put(queueUrl, '1');
    await start();
    await world.advance(1_000);
    expect(bodies(model, queueUrl)).toEqual([]);
  });
});
