import { describe, expect, it } from 'vitest';
import { type Confirmed, TerminalError } from '../../src/index.ts';
import { delivery, latch } from '../support/stand.ts';
import { effects, type StepsContext, worker } from './stand.ts';

const code = (expected: string, message = '') =>
  expect.objectContaining({ name: 'ReceiverError', code: expected, message: expect.stringContaining(message) });

/**
 * A worker that dies in the effect of its step (it never answers again), and workers after it, which are told by `confirm` what has become of it.
 */
async function afterDeath(
  confirm: (key: string, more: { ageMs: number; signal: AbortSignal }) => unknown,
  options: Record<string, unknown> = {},
) {
  const { done, now } = effects();
  const keys: string[] = [];
  const asked: { key: string; ageMs: number }[] = [];
  const handle = (effect: (ctx: StepsContext, key: string) => Promise<string>) => (ctx: StepsContext) =>
    ctx.step('charge', ({ key }) => (keys.push(key), effect(ctx, key)), {
      confirm: (async (key: string, more: { ageMs: number; signal: AbortSignal }) => {
        asked.push({ key, ageMs: more.ageMs });
        expect(more.signal).toBeInstanceOf(AbortSignal);
        return confirm(key, more);
      }) as () => Promise<Confirmed<string>>,
    });
  const dead = worker(handle(() => latch<string>().promise));
  const { world, store } = dead;
  void dead.receiver.process([delivery('a')]);
  await world.settle();
  dead.faults.broken.extend = 'before';
  // What it would still do after its death is lost.
  for (const verb of ['claim', 'settle', 'writeEntries', 'readEntries'] as const) dead.faults.broken[verb] = 'before';
  await world.advance(40_000);
  const next = worker(
    handle(() => now('charge')),
    { world, store },
    options,
  );
  return { ...next, done, keys, asked };
}

describe('a step with `confirm`', () => {
  it('makes a note before the effect, and asks nobody if its outcome is recorded', async () => {
    const { done, now } = effects();
    const asked: string[] = [];
    const { finish, faults } = worker(async (ctx) => {
      const confirm = (key: string) => (asked.push(key), 'unknown' as const);
      const result = await ctx.step('charge', () => now('charge'), { confirm });
      if (ctx.attempt < 3) throw new Error('try again');
      return result;
    });
    expect(await finish()).toMatchObject({ result: 'receipt 1 for charge' });
    expect(done).toEqual(['charge']);
    expect(asked).toEqual([]);
    expect(faults.calls.filter(({ verb }) => verb === 'writeEntries')).toHaveLength(2);
  });

  it('does nothing if the note can’t be made', async () => {
    const { done, now } = effects();
    const { deliver, faults } = worker((ctx) => ctx.step('charge', () => now('charge'), { confirm: () => 'unknown' }));
    faults.broken.writeEntries = 'before';
    faults.broken.extend = 'before';
    expect(await deliver()).toMatchObject({ action: 'retry' });
    expect(done).toEqual([]);
  });

  it('that is done gives what `confirm` knows, and it is recorded', async () => {
    const { finish, done, keys, asked } = await afterDeath(() => ({ done: 'receipt of the dead' }));
    expect(await finish()).toMatchObject({ action: 'ack', result: 'receipt of the dead' });
    expect(done).toEqual([]);
    expect(asked).toEqual([{ key: keys[0], ageMs: 40_000 }]);
  });

  it('that is absent is done now, with the same key', async () => {
    const { finish, done, keys, asked } = await afterDeath(() => 'absent');
    expect(await finish()).toMatchObject({ action: 'ack', result: 'receipt 1 for charge' });
    expect(done).toEqual(['charge']);
    expect(keys).toHaveLength(2);
    expect(new Set([...keys, asked[0]!.key]).size).toBe(1);
  });

  it('that is unknown is asked for again, after a backoff, until it is known', async () => {
    const answers = ['unknown', 'unknown', { done: 'late' }];
    const { finish, done, asked } = await afterDeath(() => answers.shift());
    expect(await finish()).toMatchObject({ action: 'ack', result: 'late' });
    expect(done).toEqual([]);
    const ages = asked.map(({ ageMs }) => ageMs);
    expect(ages).toHaveLength(3);
    expect(ages[1]! - ages[0]!).toBeGreaterThanOrEqual(1_000);
    expect(ages[2]! - ages[1]!).toBeGreaterThanOrEqual(2_000);
  });

  it('that stays unknown is parked with that reason, for a person; after a replay it is asked again before anything', async () => {
    let answer: unknown = 'unknown';
    const { finish, done, store, key } = await afterDeath(() => answer, { maxAttempts: 4 });
    const parked = {
      reason: 'unknown-outcome',
      detail:
        'ReceiverError: Step "charge" was begun and its outcome was never recorded: it may have happened, and `confirm` does not know',
    };
    expect(await finish()).toMatchObject({ action: 'dead-letter', ...parked, attempts: 4, error: code('unknown-outcome') });
    expect(await store.inspect(key)).toMatchObject({ state: 'parked', ...parked });
    expect(await finish()).toMatchObject({ action: 'dead-letter', ...parked });
    answer = { done: 'looked up by hand' };
    await store.replay(key);
    expect(await finish()).toMatchObject({ action: 'ack', result: 'looked up by hand' });
    expect(done).toEqual([]);
  });

  it('that fails without a final error is in doubt too: a lost reply is no proof', async () => {
    const asked: number[] = [];
    const { done, now } = effects();
    const { finish } = worker((ctx) =>
      ctx.step(
        'charge',
        async () => {
          await now('charge');
          throw new Error('socket hang up');
        },
        { confirm: (_, { ageMs }) => (asked.push(ageMs), { done: 'found' }) },
      ),
    );
    expect(await finish()).toMatchObject({ action: 'ack', result: 'found' });
    expect(done).toEqual(['charge']);
    expect(asked).toHaveLength(1);
  });

  it('that fails with a final error is not', async () => {
    const { finish } = worker(async (ctx) => {
      const asked = () => Promise.reject(new Error('must not be asked'));
      await ctx.step('charge', () => Promise.reject(new TerminalError('declined')), { confirm: asked }).catch(() => {});
      if (ctx.attempt === 1) throw new Error('try again');
      return 'went on';
    });
    expect(await finish()).toMatchObject({ action: 'ack', result: 'went on' });
  });

  it('counts its age from the last time that it was begun', async () => {
    const ages: number[] = [];
    const { finish, world } = worker((ctx) =>
      ctx.step('charge', () => (ctx.attempt < 4 ? Promise.reject(new Error('lost')) : 'done'), {
        confirm: (_, { ageMs }) => (ages.push(ageMs), 'absent'),
      }),
    );
    expect(await finish()).toMatchObject({ action: 'ack' });
    expect(ages).toHaveLength(3);
    expect(ages.reduce((sum, age) => sum + age, 0)).toBe(world.clock.now());
  });

  it('is tried again when `confirm` fails, and does nothing else', async () => {
    let fails = 2;
    const { finish, done } = await afterDeath(() => (fails-- > 0 ? Promise.reject(new Error('503')) : { done: 'found' }));
    expect(await finish()).toMatchObject({ action: 'ack', result: 'found' });
    expect(done).toEqual([]);
  });

  it('has the failure of `confirm` as its cause', async () => {
    const { deliver } = await afterDeath(() => Promise.reject(new TerminalError('no such gateway')));
    expect(await deliver()).toMatchObject({
      error: expect.objectContaining({ code: 'unknown-outcome', cause: new TerminalError('no such gateway') }),
    });
  });

  it('stays unknown when `confirm` fails for good: nobody knows better', async () => {
    const { finish, done } = await afterDeath(() => Promise.reject(new TerminalError('no such gateway')), { maxAttempts: 3 });
    expect(await finish()).toMatchObject({
      action: 'dead-letter',
      reason: 'unknown-outcome',
      detail: expect.stringContaining('`confirm` has failed: no such gateway'),
    });
    expect(done).toEqual([]);
  });

  it.each([['yes'], [undefined], [true], [{ result: 1 }], [null]])('does nothing when `confirm` answers %j', async (answer) => {
    const { deliver, done } = await afterDeath(() => answer);
    expect(await deliver()).toMatchObject({
      action: 'retry',
      error: code('invalid-step', "to answer { done }, 'absent' or 'unknown', got"),
    });
    expect(done).toEqual([]);
  });

  it('can’t ask for a step inside `confirm`', async () => {
    const { deliver } = worker((ctx) =>
      ctx.step('charge', () => Promise.reject(new Error('lost')), { confirm: () => ctx.step('ask', () => 'absent') as Promise<'absent'> }),
    );
    await deliver();
    expect(await deliver()).toMatchObject({ action: 'retry', error: code('nested') });
  });

  it('that has no `confirm` any more is unknown, and nothing is done', async () => {
    const { done, now } = effects();
    const first = worker((ctx) => ctx.step('charge', () => Promise.reject(new Error('lost')), { confirm: () => 'absent' }));
    await first.deliver();
    const { world, store } = first;
    const second = worker((ctx) => ctx.step('charge', () => now('charge')), { world, store });
    expect(await second.deliver()).toMatchObject({ action: 'retry', error: code('unknown-outcome', 'it has no `confirm` any more') });
    expect(done).toEqual([]);
  });

  it('that loses its claim before the effect does not begin it', async () => {
    const { done, now } = effects();
    const { deliver, store, key, world } = worker((ctx) =>
      ctx
        .step('first', () => 1)
        .then(async () => {
          // Somebody else takes the message between two steps; this worker has not noticed.
          await world.advance(0);
          await store.settle([{ key, token: stolen, retainMs: 60_000, as: 'released', counted: true }]);
          return ctx.step('charge', () => now('charge'), { confirm: () => 'unknown' });
        }),
    );
    let stolen = '';
    const claim = store.claim;
    Object.assign(store, { claim: (asks: Parameters<typeof claim>[0]) => ((stolen = asks[0]!.token), claim(asks)) });
    expect(await deliver()).toMatchObject({ action: 'retry', reason: 'fenced' });
    expect(done).toEqual([]);
  });
});
