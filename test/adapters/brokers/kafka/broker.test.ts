import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../../../adapters/stores/memory.ts';
import { createReceiver, header, TerminalError } from '../../../../src/index.ts';
import { latch } from '../../../support/stand.ts';
import { ids, later, type Rig, rig, until, type WorkerOptions } from './rig.ts';

const receiverOf = (handler: (payload: any, context: any) => unknown, options: object = {}) =>
  createReceiver(
    { scope: 'test', key: header('message-id'), store: memoryStore(), backoff: { firstMs: 100 }, ...options } as {
      scope: string;
      key: ReturnType<typeof header>;
      store: ReturnType<typeof memoryStore>;
    },
    handler,
  );

async function isCommitted({ committed }: Rig, offset: number): Promise<void> {
  await until(async () => (await committed()) === offset, `offset ${offset} to be committed`);
}

/** A consumer whose settings are checked, with what its crash said. */
async function refused(settings: Rig, start: NonNullable<WorkerOptions['start']>, options: WorkerOptions = {}) {
  const seen: string[] = [];
  await settings.produce(ids(20).map((id) => ({ id })));
  const worker = await settings.worker(
    receiverOf(({ id }) => void seen.push(id)),
    { start, ...options },
  );
  await until(() => worker.crashes.length > 0, 'the consumer to be stopped');
  return { seen, message: worker.crashes[0]!.message, errors: worker.errors, committed: await settings.committed() };
}

describe('a batch', () => {
  it('is handled once, in the order of each key, and its offsets are committed', async () => {
    const here = await rig();
    const seen: string[] = [];
    await here.produce(ids(1_000).map((id, i) => ({ id, key: `k${i % 7}` })));
    await here.worker(receiverOf(({ id }) => void seen.push(id)));
    await isCommitted(here, 1_000);
    expect(new Set(seen).size).toBe(1_000);
    expect(seen.length).toBe(1_000);
    for (let key = 0; key < 7; key++) {
      const ofKey = seen.map((id) => Number(id.slice(1))).filter((n) => n % 7 === key);
      expect(ofKey).toEqual(ofKey.toSorted((a, b) => a - b));
    }
  });

  it('runs its keys in parallel inside a partition, up to the concurrency of the receiver', async () => {
    const { produce, worker } = await rig();
    const open = latch();
    let running = 0;
    await produce(ids(12).map((id, i) => ({ id, key: i < 6 ? 'same' : id })));
    await worker(
      receiverOf(
        async () => {
          running++;
          await open.promise;
        },
        { concurrency: 5 },
      ),
    );
    await until(() => running === 5, 'five handlers at once');
    open.open();
    await until(() => running === 12, 'all handlers');
  });

  it('of messages without a key has no order, and the copies that a producer sent twice are acked without running', async () => {
    const here = await rig();
    const seen: string[] = [];
    await here.produce(
      ids(50).flatMap((id) => [
        { id, key: null },
        { id, key: null },
      ]),
    );
    await here.worker(receiverOf(({ id }) => void seen.push(id)));
    await isCommitted(here, 100);
    expect(seen.toSorted()).toEqual(ids(50).toSorted());
  });

  it('with records of transactions in it is committed up to its end, and aborted messages are not handled', async () => {
    const here = await rig();
    const seen: string[] = [];
    const transactional = here.client.producer({ transactionalId: `${here.topic}-tx`, maxInFlightRequests: 1, idempotent: true });
    await transactional.connect();
    later(() => transactional.disconnect());
    for (const id of ids(6)) {
      const transaction = await transactional.transaction();
      await transaction.send({ topic: here.topic, messages: [{ key: 'k', value: JSON.stringify({ id }), headers: { 'message-id': id } }] });
      await (Number(id.slice(1)) % 2 === 0 ? transaction.commit() : transaction.abort());
    }
    await here.produce([{ id: 'last' }]);
    await here.worker(receiverOf(({ id }) => void seen.push(id)));
    await isCommitted(here, 13);
    expect(seen.toSorted()).toEqual(['last', 'm0', 'm2', 'm4']);
  });
});

describe('a message', () => {
  it('that fails holds its key and not the partition, and its offset is not passed until it is done', async () => {
    const here = await rig();
    const seen: string[] = [];
    let broken = true;
    await here.produce([
      { id: 'a1', key: 'a' },
      { id: 'b1', key: 'b' },
      { id: 'a2', key: 'a' },
    ]);
    const { crashes } = await here.worker(
      receiverOf(({ id }) => {
        if (id === 'a1' && broken) throw new TypeError('a typo');
        seen.push(id);
      }),
    );
    await until(() => seen.includes('b1'), 'the other key');
    await here.produce(ids(20).map((id) => ({ id })));
    await until(() => seen.length === 21, 'later batches');
    expect(seen).not.toContain('a2');
    expect(await here.committed()).toBe(0);
    broken = false;
    await isCommitted(here, 23);
    expect(seen.slice(-2)).toEqual(['a1', 'a2']);
    // kafkajs would be dead by now: a TypeError stops it for good, and the sixth plain error of its life makes it rejoin.
    expect(crashes).toEqual([]);
  });

  it('that another process runs is tried again when it may be free, and holds its key meanwhile', async () => {
    const here = await rig();
    const store = memoryStore();
    const open = latch();
    const other = receiverOf(() => open.promise, { store, leaseMs: 1_000 });
    later(() => other.stop());
    const seen: string[] = [];
    await here.produce([
      { id: 'a1', key: 'a' },
      { id: 'a2', key: 'a' },
      { id: 'b', key: 'b' },
    ]);
    const taken = other.process([{ message: { id: 'x', body: '{"id":"a1"}', headers: { 'message-id': 'a1' } } }]);
    await here.worker(receiverOf(({ id }) => void seen.push(id), { store }));
    await until(() => seen.includes('b'), 'the other key');
    expect(seen).toEqual(['b']);
    open.open();
    await taken;
    await isCommitted(here, 3);
    expect(seen).toEqual(['b', 'a2']);
  });

  it('that can never succeed goes to the dead-letter topic as it was, with where it came from and why; only then is its offset passed', async () => {
    const here = await rig();
    const dead = await here.newTopic();
    let refuse = true;
    const producer = {
      send: async (record: any) => {
        if (refuse) throw new TypeError('not now');
        return here.producer.send(record);
      },
    };
    await here.produce([
      { id: 'bad', key: 'k', headers: { binary: Buffer.from([0xff, 0x00]), trace: 't' } },
      { id: 'good', key: 'k' },
    ]);
    const seen: string[] = [];
    const { errors } = await here.worker(
      receiverOf(({ id }) => {
        if (id === 'bad') throw new TerminalError('no such account');
        seen.push(id);
      }),
      { deadLetter: { producer, topic: dead } },
    );
    await until(() => errors.some(({ during }) => during === 'dead-letter') && seen.length === 1, 'a refused dead letter');
    expect(await here.committed()).toBe(0);
    refuse = false;
    await isCommitted(here, 2);
    const [letter] = await here.read(dead);
    expect(letter!.key!.toString()).toBe('k');
    expect(letter!.value!.toString()).toBe('{"id":"bad"}');
    const { binary, ...texts } = letter!.headers!;
    expect(binary).toEqual(Buffer.from([0xff, 0x00]));
    expect(Object.fromEntries(Object.entries(texts).map(([name, value]) => [name, String(value)]))).toEqual({
      'message-id': 'bad',
      trace: 't',
      'dead-letter-reason': 'terminal',
      'dead-letter-detail': 'TerminalError: no such account',
      'dead-letter-attempts': '1',
      'dead-letter-topic': here.topic,
      'dead-letter-partition': '0',
      'dead-letter-offset': '0',
      'dead-letter-timestamp': expect.stringMatching(/^\d{13}$/),
    });
  });

  it('goes there with headers named like what objects inherit, of which kafkajs makes lists that it can’t write itself', async () => {
    const here = await rig();
    const dead = await here.newTopic();
    await here.produce([{ id: 'bad', headers: JSON.parse('{"__proto__":"p","constructor":"c","twice":["1","2"]}') }]);
    const { errors } = await here.worker(
      receiverOf(() => {
        throw new TerminalError('no such account');
      }),
      { deadLetter: { producer: here.producer, topic: dead } },
    );
    await until(async () => errors.length > 0 || (await here.committed()) === 1, 'the dead letter, or its failure');
    expect(errors).toEqual([]);
    const [letter] = await here.read(dead);
    const values = (name: string) => [letter!.headers![name]].flat().filter((value) => Buffer.isBuffer(value));
    expect(['__proto__', 'constructor', 'twice'].map((name) => values(name).join())).toEqual(['p', 'c', '1,2']);
  });
});

describe('settings of `consumer.run` that would lose messages', () => {
  it('autoCommit: is refused at the first batch, and nothing is passed', async () => {
    const found = await refused(await rig(), (consumer, { eachBatch }) => consumer.run({ eachBatchAutoResolve: false, eachBatch }));
    expect(found.message).toContain('Expected `consumer.run` to be called with `autoCommit: false`');
    expect(found.message).toContain('got `autoCommit: true`');
    expect(found).toMatchObject({ seen: [], committed: 0 });
  });

  it('eachBatchAutoResolve: is refused at the first batch, and nothing is passed', async () => {
    const found = await refused(await rig(), (consumer, { eachBatch }) => consumer.run({ autoCommit: false, eachBatch }));
    expect(found.message).toContain('got `eachBatchAutoResolve: true`');
    expect(found).toMatchObject({ seen: [], committed: -1 });
  });

  it('both, which are the defaults: is refused at the first batch, and what was passed is taken back', async () => {
    const found = await refused(await rig(), (consumer, { eachBatch }) => consumer.run({ eachBatch }));
    expect(found.message).toContain('Expected `consumer.run` to be called with `autoCommit: false`');
    expect(found).toMatchObject({ seen: [], committed: 0 });
  });

  it.each([{}, { autoCommitThreshold: 1 }])(
    'autoCommit, with eachMessage: is refused at the first message, and what was passed is taken back: %o',
    async (more) => {
      const found = await refused(await rig(), (consumer, { eachMessage }) => consumer.run({ eachMessage, ...more }));
      expect(found.message).toContain('Expected `consumer.run` to be called with `autoCommit: false`');
      expect(found).toMatchObject({ seen: [], committed: 0 });
    },
  );

  it('an adapter that is made after the consumer was started: is refused at the first batch', async () => {
    const settings = await rig();
    const other = settings.client.consumer({ groupId: `${settings.groupId}-other` });
    const found = await refused(
      settings,
      (consumer, { eachBatch }) => {
        return consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch });
      },
      { adapterConsumer: other },
    );
    expect(found.message).toContain('was given another one, or made after `run`');
  });

  it.each(['eachBatch', 'eachMessage'] as const)('the right ones, with a `run` of your own and %s: everything is handled', async (kind) => {
    const here = await rig();
    const seen: string[] = [];
    let failures = 3;
    await here.produce(ids(200).map((id, i) => ({ id, key: `k${i % 5}` })));
    const { errors } = await here.worker(
      receiverOf(({ id }) => {
        if (id === 'm7' && failures-- > 0) throw new RangeError('again');
        seen.push(id);
      }),
      {
        start: (consumer, adapter) => consumer.run({ autoCommit: false, eachBatchAutoResolve: false, [kind]: adapter[kind] }),
      },
    );
    await isCommitted(here, 200);
    expect(seen.toSorted()).toEqual(ids(200).toSorted());
    expect(errors).toEqual([]);
  });
});

describe('retention', () => {
  it('that is shorter than the topic’s stops the consumer before anything is handled', async () => {
    const settings = await rig({ config: { 'retention.ms': '1209600001' } });
    const found = await refused(settings, (consumer, adapter) => consumer.run(adapter.run()), { admin: settings.admin });
    expect(found.message).toContain('Expected `retentionMs` to be at least 1209600001 (retention.ms of topic');
    expect(found.seen).toEqual([]);
  });

  it('of a topic that keeps messages for ever has to be told', async () => {
    const settings = await rig({ config: { 'cleanup.policy': 'compact' } });
    const found = await refused(settings, (consumer, adapter) => consumer.run(adapter.run()), { admin: settings.admin });
    expect(found.message).toContain('by option `horizonMs`');
  });

  it('that is long enough lets everything through', async () => {
    const here = await rig({ config: { 'retention.ms': '86400000' } });
    await here.produce(ids(3).map((id) => ({ id })));
    await here.worker(
      receiverOf(() => {}),
      { admin: here.admin },
    );
    await isCommitted(here, 3);
  });
});

describe('stop', () => {
  it('lets what runs finish, commits what is done, and leaves the rest to the next consumer', async () => {
    const here = await rig();
    const open = latch();
    const seen: string[] = [];
    const store = memoryStore();
    await here.produce(ids(100).map((id) => ({ id, key: 'k' })));
    const first = await here.worker(
      receiverOf(
        async ({ id }) => {
          if (id === 'm10') await open.promise;
          seen.push(id);
        },
        { store },
      ),
    );
    await until(() => seen.length === 10, 'ten messages');
    const stopped = first.adapter.stop();
    open.open();
    expect(await stopped).toEqual({ abandoned: 0 });
    expect(await here.committed()).toBe(11);
    await first.consumer.disconnect();
    await here.worker(receiverOf(({ id }) => void seen.push(id), { store }));
    await isCommitted(here, 100);
    expect(seen).toEqual(ids(100));
  });
});
