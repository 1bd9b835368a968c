import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { Border, ChildTask } from './child.ts';
import { child, effectsFile, newFile } from './family.ts';
import { ids, type Rig, rig, until } from './rig.ts';

const keyed = (count: number, keys = 5, from = 0) =>
  ids(count, from).map((id, i) => {
    const key = `k${(from + i) % keys}`;
    return { id, key, value: JSON.stringify({ id, key, n: from + i }) };
  });

async function family(mode: ChildTask['mode'], options: { partitions?: number } = {}) {
  const place = await rig(options);
  const { brokers, topic, groupId } = place;
  const { file, effects, count } = effectsFile();
  const start = (more: Partial<ChildTask> = {}) => child({ brokers, topic, groupId, file, mode, ...more });
  return { ...place, effects, count, start };
}

const isCommitted = ({ committed }: Pick<Rig, 'committed'>, offset: number) =>
  until(async () => (await committed()) === offset, `offset ${offset} to be committed`);

const idsOf = (effects: readonly { id: string }[]) => effects.map(({ id }) => id).toSorted();

describe('a process that is killed with SIGKILL', () => {
  const borders: [Border, ChildTask['mode']][] = [
    ['in the handler', 'records'],
    ['after the effect', 'records'],
    ['before the commit', 'records'],
    ['after the commit', 'records'],
    ['after the offset', 'records'],
    ['before the commit', 'watermark'],
    ['after the commit', 'watermark'],
    ['in the handler', 'watermark only'],
    ['before the commit', 'watermark only'],
    ['after the commit', 'watermark only'],
    ['after the offset', 'watermark only'],
  ];

  it.each(borders)('%s, with %s: every effect happens once, in the order of its key', async (kill, mode) => {
    const here = await family(mode);
    await here.produce(keyed(300));
    const first = here.start({ kill, once: newFile(), ...(kill === 'after the offset' ? {} : { id: 'm31' }) });
    expect((await first.ended)[1]).toBe('SIGKILL');
    const second = here.start();
    await second.said('joined');
    await isCommitted(here, 300);
    expect(idsOf(here.effects())).toEqual(ids(300).toSorted());
    for (const key of ['k0', 'k1', 'k2', 'k3', 'k4']) {
      const order = here
        .effects()
        .filter((each) => each.key === key)
        .map(({ n }) => n);
      expect(order).toEqual(order.toSorted((a, b) => a - b));
    }
    expect((await second.stop())[0]).toBe(0);
  });

  it('between effect and record, leased: that effect happens twice, as is said', async () => {
    const here = await family('leased');
    await here.produce(keyed(20));
    const first = here.start({ kill: 'after the effect', id: 'm7', once: newFile() });
    await first.ended;
    const next = here.start();
    await next.said('joined');
    await isCommitted(here, 20);
    const effects = idsOf(here.effects());
    expect([...new Set(effects)]).toEqual(ids(20).toSorted());
    // So do those that other handlers of the process were at.
    expect(effects.filter((id) => id === 'm7')).toHaveLength(2);
    expect(effects.length).toBeLessThanOrEqual(25);
  });
});

describe('a message that kills its process each time', () => {
  it.each(['records', 'leased'] as const)(
    'is parked after maxAttempts, and the partition goes on: %s',
    async (mode) => {
      const here = await family(mode);
      // Behind it are more than are in one unit.
      await here.produce(keyed(250));
      let deaths = 0;
      let last = here.start({ kill: 'in the handler', id: 'm120', maxAttempts: 3 });
      for (; deaths < 12; deaths++) {
        const ended = await Promise.race([last.ended, isCommitted(here, 250)]);
        if (!ended) break;
        expect(ended[1]).toBe('SIGKILL');
        last = here.start({ kill: 'in the handler', id: 'm120', maxAttempts: 3 });
      }
      expect(last.lines).toContain('dead m120 max-attempts');
      expect(deaths).toBeGreaterThanOrEqual(3);
      expect(deaths).toBeLessThanOrEqual(5);
      const effects = idsOf(here.effects());
      const others = ids(250).filter((id) => id !== 'm120');
      // Leased, those that run beside it when it kills may run twice.
      expect(mode === 'leased' ? [...new Set(effects)] : effects).toEqual(others.toSorted());
    },
    60_000,
  );
});

describe('a process that is stopped past its session, and wakes while another has its partition', () => {
  it.each(['records', 'watermark', 'watermark only'] as const)('changes nothing any more: %s', async (mode) => {
    const here = await family(mode);
    await here.produce(keyed(40));
    // It stops outside of any transaction, for SQLite's lock would make the other wait.
    const zombie = here.start({ wait: 'after the commit', once: newFile() });
    await zombie.said('here');
    zombie.signal('SIGSTOP');
    const other = here.start();
    await other.said('joined');
    await until(() => here.count() === 40, 'the other to handle all');
    await isCommitted(here, 40);
    await here.produce(keyed(10, 5, 40));
    zombie.signal('SIGCONT');
    zombie.goOn();
    await isCommitted(here, 50);
    await pause(500);
    expect(idsOf(here.effects())).toEqual(ids(50).toSorted());
    expect(await here.committed()).toBe(50);
    await other.stop();
    await here.produce(keyed(10, 5, 50));
    await isCommitted(here, 60);
    expect(idsOf(here.effects())).toEqual(ids(60).toSorted());
  });

  it('in the middle of a handler, leased: its outcome is refused, and the new owner goes on', async () => {
    const here = await family('leased');
    await here.produce(keyed(10, 1));
    const zombie = here.start({ wait: 'in the handler', id: 'm3', once: newFile() });
    await zombie.said('here');
    zombie.signal('SIGSTOP');
    const next = here.start();
    await next.said('joined');
    await isCommitted(here, 10);
    zombie.signal('SIGCONT');
    zombie.goOn();
    await pause(500);
    // Both handlers ran: that is what `leased` can't prevent.
    expect(idsOf(here.effects())).toEqual([...ids(10), 'm3'].toSorted());
    expect(await here.committed()).toBe(10);
  });
});
