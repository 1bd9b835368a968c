import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it } from 'vitest';
import { sqliteStore } from '../../../../adapters/stores/sqlite/index.ts';
import { RetryAfter, TerminalError } from '../../../../src/index.ts';
import { faulty, latch } from '../../../support/stand.ts';
import { ids } from './rig.ts';
import { virtual } from './virtual.ts';

const messages = (count: number, key?: string) => ids(count).map((id) => (key === undefined ? { id } : { id, key }));
const forAges = () => new Promise<void>(() => {});
const offsetsOf = (log: readonly { name: string; offset?: number }[]) =>
  log.filter(({ name }) => name === 'OffsetCommit').map(({ offset }) => offset);

describe('a handler that takes longer than the session', () => {
  it('keeps its membership: heartbeats go on while it runs', async () => {
    const { model, world, worker, committed } = virtual();
    const open = latch();
    const { consumer } = await worker(() => open.promise);
    model.produce('t', messages(1));
    await world.advance(299_000);
    expect(model.group('g').members()).toHaveLength(1);
    expect(consumer.log.filter(({ name }) => name === 'JoinGroup')).toHaveLength(1);
    open.open();
    await world.advance(1_000);
    expect(committed()).toBe(1);
  });

  it('is told by its signal when the membership is lost; nothing is settled and no offset is committed', async () => {
    const { model, world, worker, committed } = virtual();
    const reasons: string[] = [];
    let runs = 0;
    const { consumer } = await worker(async (_, { signal }) => {
      if (++runs > 1) return;
      await new Promise((_resolve, reject) =>
        signal.addEventListener('abort', () => (reasons.push(signal.reason.code), reject(signal.reason))),
      );
    });
    model.produce('t', messages(1));
    await world.advance(10_000);
    const before = consumer.log.length;
    model.group('g').expel('member-1');
    // The next heartbeat tells.
    for (let ms = 0; ms < 3_000 && reasons.length === 0; ms += 100) await world.advance(100);
    expect(reasons).toEqual(['claim-lost']);
    expect(offsetsOf(consumer.log.slice(before)).filter((offset) => offset !== 0)).toEqual([]);
    expect(committed()).toBe(0);
    // It joins anew at once, though its handler had not ended, and the message comes again.
    await world.advance(60_000);
    expect(committed()).toBe(1);
    expect(runs).toBe(2);
  });

  it('is told at once by its signal in a transaction too, and what it has written is taken back: the next owner handles it', async () => {
    const { model, world, worker, committed } = virtual();
    const db = new DatabaseSync(':memory:');
    db.exec('create table effects (run integer)');
    const told: unknown[] = [];
    const open = latch();
    let runs = 0;
    await worker(
      async (_, { tx, signal }) => {
        tx.prepare('insert into effects values (?)').run(++runs);
        signal.addEventListener('abort', () => told.push(signal.reason.code));
        await open.promise;
      },
      { receiver: { store: sqliteStore(db, { world }), cacheSize: 0 } },
    );
    // SQLite's transactions take turns of the event loop.
    const advance = async (ms: number) => {
      for (let left = ms; left > 0; left -= 100) {
        await world.advance(100);
        for (let i = 0; i < 5; i++) await world.settle();
      }
    };
    model.produce('t', messages(1));
    await advance(10_000);
    model.group('g').expel('member-1');
    // The next heartbeat tells.
    for (let ms = 0; ms < 3_000 && told.length === 0; ms += 100) await advance(100);
    expect(told).toEqual(['claim-lost']);
    // It ends as if nothing had happened.
    open.open();
    await advance(10_000);
    expect(db.prepare('select run from effects').all()).toEqual([{ run: 2 }]);
    expect(committed()).toBe(1);
  });

  it('in a process that is stopped and wakes: offsets of another owner are not set back', async () => {
    const { model, world, worker } = virtual();
    const open = latch();
    let slow = true;
    const first = await worker(async ({ id }) => {
      if (slow && id === 'm1') await open.promise;
    });
    model.produce('t', messages(3, 'k'));
    await world.advance(500);
    first.consumer.freeze();
    slow = false;
    await world.advance(31_000);
    expect(model.group('g').members()).toEqual([]);
    await worker(() => {});
    await world.advance(60_000);
    model.produce(
      't',
      ids(2, 3).map((id) => ({ id, key: 'k' })),
    );
    await world.advance(10_000);
    first.consumer.wake();
    open.open();
    await world.advance(120_000);
    const { history } = model.group('g');
    const offsets = history.map(({ offset }) => offset);
    expect(offsets).toEqual(offsets.toSorted((a, b) => a - b));
    expect(offsets.at(-1)).toBe(5);
  });
});

describe('a rebalance', () => {
  it('that a heartbeat tells of lets what runs finish, begins nothing more, and commits before the consumer joins anew', async () => {
    const { model, world, worker, committed } = virtual();
    const seen: string[] = [];
    const open = latch();
    const { consumer } = await worker(
      async ({ id }) => {
        seen.push(id);
        if (id === 'm2') await open.promise;
      },
      { kafka: { maxInFlight: 3 } },
    );
    model.produce('t', messages(8, 'k'));
    await world.advance(1_000);
    model.group('g').rebalance();
    await world.advance(10_000);
    expect(seen).toEqual(['m0', 'm1', 'm2']);
    const joins = consumer.log.filter(({ name }) => name === 'JoinGroup').length;
    open.open();
    await world.advance(0);
    expect(committed()).toBe(3);
    expect(consumer.log.filter(({ name }) => name === 'JoinGroup').length).toBe(joins + 1);
    await world.advance(1_000);
    expect(seen).toEqual(ids(8));
    expect(committed()).toBe(8);
  });

  it('takes the partition: what a handler of before achieves is recorded, and its offset is the new owner’s to commit', async () => {
    const { model, world, worker, committed } = virtual();
    const open = latch();
    const first = await worker(() => open.promise);
    model.produce('t', messages(1));
    const second = await worker(() => {});
    await world.advance(10_000);
    model.group('g').expel('member-1');
    await world.advance(1_000);
    const before = first.consumer.log.length;
    open.open();
    await world.advance(20_000);
    expect(offsetsOf(first.consumer.log.slice(before))).toEqual([]);
    expect(offsetsOf(second.consumer.log)).toEqual([0, 0, 1]);
    expect(committed()).toBe(1);
  });

  it('lets what runs finish also if it is a later try, for which kafkajs does not wait', async () => {
    const { model, world, worker, committed } = virtual();
    const seen: (string | boolean)[] = [];
    const { consumer } = await worker(async ({ id }, { attempt, signal }) => {
      seen.push(`${id} ${attempt}`);
      if (attempt === 1) throw new RetryAfter(1_000);
      await new Promise<void>((resolve) => void world.clock.after(20_000, resolve));
      seen.push(signal.aborted);
    });
    model.produce('t', messages(1));
    await world.advance(3_000);
    expect(seen).toEqual(['m0 1', 'm0 2']);
    model.group('g').rebalance();
    await world.advance(10_000);
    expect(consumer.log.filter(({ name }) => name === 'JoinGroup')).toHaveLength(2);
    await world.advance(40_000);
    expect(seen).toEqual(['m0 1', 'm0 2', false]);
    expect(committed()).toBe(1);
  });

  it('ends a pause: whoever has the partition then reads on', async () => {
    const { model, world, worker, committed } = virtual();
    let broken = true;
    const { consumer } = await worker(
      ({ id }) => {
        if (id === 'm0' && broken) throw new RetryAfter(600_000);
      },
      { kafka: { window: 5 } },
    );
    model.produce('t', messages(20));
    await world.advance(1_000);
    expect([...consumer.paused]).toEqual(['t/0']);
    broken = false;
    model.group('g').rebalance();
    await world.advance(20_000);
    expect(committed()).toBe(20);
  });

  it('drops what waits for its next try in memory: the new owner gets it, and this one commits nothing of it any more', async () => {
    const { model, world, worker, committed } = virtual();
    let runs = 0;
    const { consumer } = await worker(() => {
      if (++runs < 3) throw new RetryAfter(20_000);
    });
    model.produce('t', messages(1));
    await world.advance(1_000);
    expect(runs).toBe(1);
    model.group('g').rebalance();
    await world.advance(9_000);
    // It came again because its offset was not committed, and not because of the timer.
    expect(runs).toBe(2);
    await world.advance(25_000);
    expect(runs).toBe(3);
    expect(committed()).toBe(1);
    expect(offsetsOf(consumer.log)).toEqual([0, 0, 1]);
  });
});

describe('a join that breaks off, after which kafkajs goes on reading what it had', () => {
  const lost = () => Object.assign(new Error('Connection error'), { name: 'KafkaJSConnectionError', retriable: true });

  it.each([
    ['SyncGroup', 'the new generation, whose partitions nobody would read'],
    ['JoinGroup', 'no membership, and without it no heartbeat'],
  ])('%s: it is made to join again, out of %s', async (api) => {
    const { model, world, worker, committed } = virtual();
    const seen: string[] = [];
    const { consumer } = await worker(({ id }) => void seen.push(id));
    await world.advance(5_000);
    let breaks = 1;
    consumer.intercept = async (name) => {
      if (name === api && breaks-- > 0) throw lost();
    };
    if (api === 'SyncGroup') model.group('g').rebalance();
    else model.group('g').expel('member-1');
    await world.advance(10_000);
    expect(breaks).toBe(0);
    model.produce('t', messages(3));
    // Where nothing more comes, it has to be made to read again.
    await world.advance(api === 'SyncGroup' ? 20_000 : 150_000);
    expect(seen).toEqual(ids(3));
    expect(committed()).toBe(3);
    expect(consumer.crashes).toEqual([]);
  });

  it('of a member that was put out while the last it had begun came to its end: at once, and it does not read in a circle', async () => {
    const { model, world, worker, committed } = virtual();
    const seen: string[] = [];
    const open = latch();
    const { consumer } = await worker(
      async ({ id }, { attempt }) => {
        seen.push(id);
        if (id !== 'm0' || attempt > 1) return;
        await open.promise;
        throw new RetryAfter(1_000);
      },
      { kafka: { maxInFlight: 1 } },
    );
    model.produce('t', messages(3, 'k'));
    await world.advance(1_000);
    // A heartbeat tells of the rebalance; of the rest kafkajs alone hears, because nothing is to be committed, and joins without a word.
    model.group('g').rebalance();
    await world.advance(5_000);
    let breaks = 1;
    let fetches = 0;
    consumer.intercept = async (name) => {
      if (name === 'JoinGroup' && breaks-- > 0) throw lost();
      if (name === 'Fetch' && ++fetches > 100) await new Promise<void>((resolve) => void world.clock.after(1_000, resolve));
    };
    model.group('g').expel('member-1');
    open.open();
    await world.advance(20_000);
    expect(breaks).toBeLessThan(0);
    expect(fetches).toBeLessThan(100);
    expect(seen).toEqual(['m0', 'm0', 'm1', 'm2']);
    expect(committed()).toBe(3);
  });
});

describe('a consumer that kafkajs gives up', () => {
  /** Three messages come at 20 s. Whatever kafkajs asks for before is answered by an error that it takes for final. */
  async function givenUp(options: Parameters<ReturnType<typeof virtual>['worker']>[1] = {}) {
    const { model, world, worker } = virtual();
    const seen: string[] = [];
    const one = await worker(({ id }) => void seen.push(id), options);
    one.consumer.intercept = async () => {
      if (world.clock.now() < 20_000) throw Object.assign(new Error('Broker not connected'), { retriable: false });
    };
    const handled = async (meanwhile: () => unknown = () => {}) => {
      await world.advance(10_000);
      await meanwhile();
      await world.advance(10_000);
      model.produce('t', messages(3));
      await world.advance(60_000);
      return seen;
    };
    return { ...one, handled };
  }

  it('is run again, as often as it takes', async () => {
    const { consumer, errors, handled } = await givenUp();
    expect(await handled()).toEqual(ids(3));
    expect(consumer.crashes.length).toBeGreaterThan(3);
    expect(consumer.crashes.length).toBeLessThan(20);
    expect(consumer.crashes.every(({ restart }) => !restart)).toBe(true);
    expect(errors.map(({ during }) => during)).toEqual(consumer.crashes.map(() => 'membership'));
  });

  it('is run again where connecting fails', async () => {
    const { consumer, errors, handled } = await givenUp();
    const attempts = ['connect', 'disconnect'] as const;
    const failing = Object.fromEntries(attempts.map((each) => [each, consumer[each]]));
    const fail = async () => {
      throw new Error('no way');
    };
    Object.assign(consumer, { connect: fail, disconnect: fail });
    expect(await handled(() => void Object.assign(consumer, failing))).toEqual(ids(3));
    expect(errors.filter(({ error }) => error.message === 'no way').length).toBeGreaterThan(2);
  });

  it('stays so when the user has disconnected it meanwhile', async () => {
    const { consumer, handled } = await givenUp();
    expect(await handled(() => consumer.disconnect())).toEqual([]);
  });

  it('stays so when the user has disconnected it while it was connecting in vain', async () => {
    const { consumer, handled } = await givenUp();
    const { connect } = consumer;
    const broken = Promise.withResolvers<void>();
    Object.assign(consumer, { connect: () => broken.promise });
    const meanwhile = async () => {
      await consumer.disconnect();
      Object.assign(consumer, { connect });
      broken.reject(new Error('no way'));
    };
    expect(await handled(meanwhile)).toEqual([]);
  });

  it('stays so when the user has disconnected it while it was being disconnected', async () => {
    const { consumer, handled } = await givenUp();
    const { disconnect } = consumer;
    const open = latch();
    Object.assign(consumer, { disconnect: () => open.promise.then(disconnect) });
    const meanwhile = async () => {
      const users = disconnect();
      open.open();
      await users;
    };
    expect(await handled(meanwhile)).toEqual([]);
  });

  // kafkajs's `disconnect` does not end a `connect` or a `run` that is under way: that one ends up connected, or a member that keeps its partitions.
  describe.each(['connect', 'run'] as const)('is not left behind by a `%s` that is under way', (step) => {
    it.each(['the adapter is stopped and the user disconnects', 'the user disconnects'])('when %s', async (way) => {
      const { adapter, consumer, handled } = await givenUp();
      const { disconnect } = consumer;
      const done = consumer[step] as (config: unknown) => Promise<void>;
      const open = latch();
      const log: string[] = [];
      Object.assign(consumer, {
        async [step](config: unknown) {
          log.push('begun');
          await open.promise;
          await done(config);
          log.push('there');
        },
        disconnect: async () => {
          log.push('disconnected');
          await disconnect();
        },
      });
      const meanwhile = async () => {
        log.splice(0);
        if (way.startsWith('the adapter')) void adapter.stop();
        await consumer.disconnect();
        open.open();
      };
      expect(await handled(meanwhile)).toEqual([]);
      expect(log).toEqual(['disconnected', 'there', 'disconnected']);
    });
  });

  it('is run again where the user has connected and run it himself since', async () => {
    const { adapter, consumer, handled } = await givenUp();
    const meanwhile = async () => {
      await consumer.disconnect();
      await consumer.connect();
      await consumer.run(adapter.run());
    };
    expect(await handled(meanwhile)).toEqual(ids(3));
  });

  it('stays so when the adapter has been stopped', async () => {
    const { adapter, handled } = await givenUp();
    expect(await handled(() => void adapter.stop())).toEqual([]);
  });

  it.each([
    ['the last of many tries', Object.assign(new Error('many'), { name: 'KafkaJSNumberOfRetriesExceeded' })],
    ['what may pass', Object.assign(new Error('outer'), { cause: Object.assign(new Error('inner'), { retriable: true }) })],
  ])('stays so when the user’s own `restartOnFailure` has said so: %s', async (_, error) => {
    const { model, world, worker } = virtual();
    const seen: string[] = [];
    const { consumer, errors } = await worker(({ id }) => void seen.push(id));
    await world.advance(1_000);
    const stopped = consumer.stop();
    await world.advance(10_000);
    await stopped;
    consumer.emit('consumer.crash', { error, groupId: 'g', restart: false });
    model.produce('t', messages(3));
    await world.advance(60_000);
    expect(seen).toEqual([]);
    expect(errors.map((each) => each.error)).toEqual([error]);
  });

  it('is reported, with what to do, where `run` is the user’s own', async () => {
    const own = { autoCommit: false, eachBatchAutoResolve: false };
    const { errors, handled } = await givenUp({ start: (consumer, { eachBatch }) => consumer.run({ ...own, eachBatch }) });
    expect(await handled()).toEqual([]);
    expect(errors.map(({ error }) => error.message)).toEqual([
      'Broker not connected',
      'kafkajs does not start this consumer again: connect and run it again, or start the process anew',
    ]);
  });
});

describe('a consumer that crashes, and that kafkajs starts again', () => {
  it('is told of each two minutes, as long as it has not joined', async () => {
    const { world, worker } = virtual();
    const { consumer, errors } = await worker(() => {});
    let lost = 0;
    consumer.intercept = async (name) => {
      if (name === 'JoinGroup') await new Promise(() => {});
      if (lost++ < 20) throw Object.assign(new Error('Connection error'), { retriable: true });
    };
    await world.advance(400_000);
    expect(consumer.crashes.map(({ restart }) => restart)).toEqual([true]);
    const told = errors.filter(({ error }) => error.message.includes('does not join its group again'));
    expect(told).toHaveLength(3);
  });
});

describe('offsets', () => {
  it('are committed together: one request for many messages, none while nothing moves', async () => {
    const { model, world, worker } = virtual();
    const { consumer } = await worker(() => {});
    for (let i = 0; i < 50; i++) {
      model.produce('t', [{ id: `x${i}` }]);
      await world.advance(1);
    }
    await world.advance(60_000);
    expect(offsetsOf(consumer.log).length).toBeLessThanOrEqual(4);
    expect(offsetsOf(consumer.log).at(-1)).toBe(50);
  });

  it('whose commit fails are committed later, also if nothing more comes, and the failure reaches the user and not kafkajs', async () => {
    const { model, world, worker, committed } = virtual();
    const { consumer, errors } = await worker(() => {});
    consumer.intercept = async (name) => {
      if (name === 'OffsetCommit') throw new TypeError('reply lost');
    };
    model.produce('t', messages(2));
    await world.advance(3_000);
    expect(committed()).toBeUndefined();
    expect(new Set(errors.map(({ during }) => during))).toEqual(new Set(['commit']));
    expect(errors.length).toBeLessThan(6);
    consumer.intercept = async () => {};
    await world.advance(1_000);
    expect(committed()).toBe(2);
    expect(consumer.crashes).toEqual([]);
  });

  it('are committed one after another: what has advanced while a commit is under way can’t overtake it', async () => {
    const { model, world, worker, committed } = virtual();
    const { consumer } = await worker(() => {});
    model.produce('t', [{ id: 'first' }]);
    await world.advance(1_000);
    const open = latch();
    let underWay = 0;
    let most = 0;
    consumer.intercept = async (name) => {
      if (name !== 'OffsetCommit') return;
      most = Math.max(most, ++underWay);
      await open.promise;
      underWay--;
    };
    for (let i = 0; i < 3; i++) {
      model.produce('t', [{ id: `x${i}` }]);
      await world.advance(500);
    }
    open.open();
    await world.advance(1_000);
    expect([most, committed()]).toEqual([1, 4]);
  });

  it('are committed where reading begins, before anything is handled: a group that reads from the end must not skip what it died of', async () => {
    const { model, world, worker, committed } = virtual();
    const committedAt: (number | undefined)[] = [];
    model.produce('t', messages(7));
    await worker(() => void committedAt.push(committed()), {
      start: async (to, adapter) => {
        await to.run(adapter.run());
        to.seek({ topic: 't', partition: 0, offset: '5' });
      },
    });
    await world.advance(1_000);
    expect(committedAt).toEqual([5, 5]);
  });

  it('pass records that are not shown', async () => {
    const { model, world, worker, committed } = virtual();
    model.produce('t', messages(1));
    model.produceControl('t', 0);
    model.produceControl('t', 0);
    await worker(() => {});
    await world.advance(1_000);
    expect(committed()).toBe(3);
  });

  it('are not passed while an earlier message waits, over many batches; the partition pauses at the window, and goes on at half of it', async () => {
    const { model, world, worker, committed } = virtual();
    const seen: string[] = [];
    let broken = true;
    const { consumer } = await worker(
      ({ id }) => {
        if (id === 'm0' && broken) throw new RetryAfter(60_000);
        seen.push(id);
      },
      { kafka: { window: 20 }, consumer: { maxBatch: 8 } },
    );
    model.produce('t', messages(100));
    await world.advance(30_000);
    expect(seen).toEqual(ids(23, 1));
    expect([...consumer.paused]).toEqual(['t/0']);
    expect(committed()).toBe(0);
    broken = false;
    await world.advance(60_000);
    expect(seen.toSorted()).toEqual(ids(100).toSorted());
    expect([...consumer.paused]).toEqual([]);
    expect(committed()).toBe(100);
  });

  it('that somebody else commits beside the adapter stop the consumer, with the reason', async () => {
    const { model, world, worker } = virtual();
    const { consumer, errors } = await worker(() => {});
    model.produce('t', messages(3));
    await world.advance(1_000);
    await consumer.commitOffsets([{ topic: 't', partition: 0, offset: '1' }]);
    model.produce('t', [{ id: 'x' }]);
    await world.advance(1_000);
    expect(consumer.crashes.map(({ restart }) => restart)).toEqual([false]);
    expect(errors[0]!.error.message).toContain('offsets that somebody else has committed');
  });
});

describe('what a user throws', () => {
  it.each([
    ['the handler', { handler: () => Promise.reject(new TypeError('x')) }],
    [
      'the order',
      {
        kafka: {
          order: () => {
            throw new TypeError('x');
          },
        },
      },
    ],
    [
      'onError',
      {
        kafka: {
          onError: () => {
            throw new TypeError('x');
          },
          order: () => {
            throw new TypeError('y');
          },
        },
      },
    ],
    [
      'the schema',
      {
        receiver: {
          schema: {
            '~standard': {
              version: 1,
              vendor: 'x',
              validate: () => {
                throw new SyntaxError('x');
              },
            },
          },
        },
      },
    ],
    [
      'the key',
      {
        receiver: {
          key: () => {
            throw new ReferenceError('x');
          },
        },
      },
    ],
    [
      'a hook',
      {
        receiver: {
          on: {
            received: () => {
              throw new TypeError('x');
            },
          },
        },
      },
    ],
  ] as const)('never reaches kafkajs: %s', async (_, { handler = () => {}, ...options }: any) => {
    const { model, world, worker, committed } = virtual();
    const { consumer } = await worker(handler, { ...options, receiver: { maxAttempts: 3, ...options.receiver } });
    model.produce('t', messages(5));
    await world.advance(60_000);
    expect(consumer.crashes).toEqual([]);
    expect(committed()).toBe(5);
  });

  it('in its dead-letter function is tried again with a growing delay, and the offset waits', async () => {
    const { model, world, worker, committed } = virtual();
    const calls: number[] = [];
    const { consumer } = await worker(() => Promise.reject(new TerminalError('no')), {
      kafka: {
        deadLetter: ({ record, reason, detail, attempts }) => {
          calls.push(world.clock.now());
          expect({ id: record.headers['message-id'], reason, detail, attempts }).toEqual({
            id: 'm0',
            reason: 'terminal',
            detail: 'TerminalError: no',
            attempts: 1,
          });
          if (calls.length < 5) throw new TypeError('queue full');
        },
      },
    });
    model.produce('t', messages(1));
    await world.advance(700);
    expect(committed()).toBe(0);
    await world.advance(10_000);
    expect(calls).toHaveLength(5);
    const gaps = calls.slice(1).map((at, i) => at - calls[i]!);
    expect(gaps).toEqual(gaps.toSorted((a, b) => a - b));
    expect(committed()).toBe(1);
    expect(consumer.crashes).toEqual([]);
  });
});

describe('the store', () => {
  it('that is down: nothing is handled, nothing is passed, and it goes on by itself in the order of each key', async () => {
    const place = virtual();
    const { store, broken } = faulty(place.store);
    const seen: string[] = [];
    const { consumer, errors } = await place.worker(({ id }) => void seen.push(id), { receiver: { store } });
    broken.claim = 'before';
    place.model.produce('t', messages(10, 'k'));
    await place.world.advance(120_000);
    expect(seen).toEqual([]);
    expect(place.committed()).toBe(0);
    delete broken.claim;
    await place.world.advance(30_000);
    expect(seen).toEqual(ids(10));
    expect(place.committed()).toBe(10);
    expect(consumer.crashes).toEqual([]);
    // It is told, once for each time that it was tried.
    expect(new Set(errors.map(({ error, during }) => `${during}: ${error.message}`))).toEqual(new Set(['process: claim: request lost']));
    expect(errors.length).toBeLessThan(30);
  });
});

describe('eachMessage', () => {
  it('lets a message come again that could not be taken, and loses none', async () => {
    const { model, world, worker, committed } = virtual();
    const seen: string[] = [];
    const { consumer } = await worker(({ id }) => void seen.push(id), {
      start: (to, adapter) => to.run({ autoCommit: false, eachMessage: adapter.eachMessage }),
      kafka: {
        admin: {
          describeCluster: async () => {
            if (world.clock.now() < 3_000) throw new TypeError('not now');
            return { brokers: [{ nodeId: 1 }] };
          },
          describeConfigs: async () => ({
            resources: [
              {
                resourceName: 't',
                resourceType: 2,
                configEntries: [
                  { configName: 'retention.ms', configValue: '1000' },
                  { configName: 'cleanup.policy', configValue: 'delete' },
                ],
              },
            ],
          }),
        },
      },
    });
    model.produce('t', messages(5));
    await world.advance(20_000);
    expect(seen).toEqual(ids(5));
    expect(committed()).toBe(5);
    expect(consumer.crashes).toEqual([]);
  });
});

describe('a consumer that is moved back by its user', () => {
  it('handles what is below where it began, knows what it has done, and commits from there, as kafkajs does', async () => {
    const { model, world, worker, committed } = virtual();
    const seen: string[] = [];
    model.produce('t', messages(6));
    const { consumer } = await worker(({ id }) => void seen.push(id), {
      start: async (to, adapter) => {
        await to.run(adapter.run());
        to.seek({ topic: 't', partition: 0, offset: '3' });
      },
    });
    await world.advance(1_000);
    expect(seen).toEqual(ids(3, 3));
    consumer.seek({ topic: 't', partition: 0, offset: '1' });
    model.produce('t', [{ id: 'more' }]);
    await world.advance(10_000);
    expect(seen).toEqual([...ids(3, 3), ...ids(2, 1), 'more']);
    expect(committed()).toBe(7);
    expect(offsetsOf(consumer.log)).toEqual([3, 6, 1, 7]);
  });
});

describe('stop', () => {
  it('gives back what waits, commits what is done, and a consumer that runs on gets nothing handled and passes nothing', async () => {
    const { model, world, worker, committed } = virtual();
    const seen: string[] = [];
    const { adapter, consumer } = await worker(({ id }) => {
      if (id === 'm2') throw new RetryAfter(600_000);
      seen.push(id);
    });
    model.produce('t', messages(4));
    await world.advance(10);
    expect(seen).toEqual(['m0', 'm1', 'm3']);
    const stopped = adapter.stop();
    await world.advance(10);
    expect(await stopped).toEqual({ abandoned: 0 });
    expect(committed()).toBe(2);
    model.produce('t', messages(3));
    await world.advance(30_000);
    expect(seen).toHaveLength(3);
    expect(committed()).toBe(2);
    expect(consumer.crashes).toEqual([]);
  });

  it('leaves no timer behind where a batch is held back whose consumer is no member any more', async () => {
    const { model, world, worker } = virtual();
    const { adapter, consumer } = await worker(() => {}, { consumer: { heartbeatInterval: 5 } });
    const [committing, joining] = [latch(), latch()];
    await world.advance(1_000);
    consumer.intercept = async (name) => {
      if (name === 'OffsetCommit') await committing.promise;
      if (name === 'JoinGroup') await joining.promise;
    };
    model.produce('t', messages(1));
    await world.advance(10);
    const stopped = adapter.stop({ graceMs: 100 });
    // A moment before it gives the commit up.
    await world.advance(3_995);
    model.group('g').expel('member-1');
    await world.advance(200);
    expect([await stopped, consumer.log.at(-1)]).toEqual([{ abandoned: 0 }, { name: 'JoinGroup' }]);
    expect(world.timers).toBe(0);
    committing.open();
    joining.open();
  });

  it('of a handler that ignores its signal counts it', async () => {
    const { model, world, worker } = virtual();
    const { adapter } = await worker(forAges);
    model.produce('t', messages(1));
    await world.advance(10);
    const stopped = adapter.stop({ graceMs: 100 });
    await world.advance(10_000);
    expect(await stopped).toEqual({ abandoned: 1 });
  });
});

describe('options', () => {
  const base = { consumer: { on: () => () => {}, seek() {}, commitOffsets: async () => {} }, deadLetter: 'drop' } as const;
  it.each([
    [{ deadLetter: undefined }, "Expected `deadLetter` to be `{ producer, topic }`, a function, or 'drop'"],
    [{ deadLetter: { producer: {}, topic: 't' } }, 'Expected `deadLetter`'],
    [{ consumer: {} }, 'Expected `consumer` to be the consumer of kafkajs'],
    [{ order: 'topic' }, "Expected `order` to be 'key', 'partition', 'none' or a function"],
    [{ sessionTimeoutMs: 5_999 }, "Expected `sessionTimeoutMs` to be at least the receiver's `leaseMs`, which is 6000, got `5999`"],
    [{ maxInFlight: 0 }, 'Expected `maxInFlight` to be a whole number'],
    [{ window: 1.5 }, 'Expected `window` to be a whole number'],
    [{ transactions: { assign() {}, revoke() {} } }, 'Expected `transactions` to be absent, because the receiver is leased'],
    [{ watermark: { watermark: { advancing() {} } } }, 'Expected `watermark` to be absent, because the receiver is leased'],
    [{ horizonMs: 1e12 }, 'Expected `retentionMs` to be at least 1000000000000 (option `horizonMs`)'],
  ])('%o is refused', async (options, message) => {
    const { kafka } = await import('../../../../adapters/brokers/kafka/index.ts');
    const { worker } = virtual();
    const { receiver } = await worker(() => {});
    expect(() => kafka(receiver, { ...base, ...options } as never)).toThrow(message);
  });
});
