import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { expectAlways, expectSame, killRig, type Told } from './kill-rig.ts';

const folder = mkdtempSync(join(tmpdir(), 'idempotent-steps-'));
let rig: Awaited<ReturnType<typeof killRig>>;
beforeAll(async () => {
  rig = await killRig((id) => `sqlite:${join(folder, `${id}.db`)}`);
});
afterAll(async () => {
  await rig?.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('a worker that is killed wherever it waits, and whose message comes again', { timeout: 120_000 }, () => {
  it('without a helper: the money moves twice if it dies between the effect and the record', async () => {
    const outcomes = await rig.killedEverywhere('no helper', 'honoured');
    expect(outcomes.get('after charge')).toEqual(['charge', 'charge']);
    expect(outcomes.get('before settle')).toEqual(['charge', 'charge']);
  });

  it('with a step, and a gateway that honours keys: the money moves once', async () => {
    const outcomes = await rig.killedEverywhere('step', 'honoured');
    expect([...outcomes.keys()]).toEqual([
      ...['before claim', 'after claim', 'before read', 'after read', 'before charge', 'after charge'],
      ...['before write charge done', 'after write charge done', 'before settle', 'after settle'],
    ]);
    expectAlways(outcomes, ['charge']);
  });

  it('with a step, and a gateway that ignores keys: the money moves twice if it dies between the effect and its record', async () => {
    const outcomes = await rig.killedEverywhere('step', 'ignored');
    const twice = [...outcomes].filter(([, what]) => what.length === 2).map(([place]) => place);
    expect(twice).toEqual(['after charge', 'before write charge done']);
    for (const what of outcomes.values()) expect(what.length).toBeGreaterThan(0);
  });

  it('with a step that has `confirm`, and a gateway that ignores keys: the money moves once', async () => {
    const outcomes = await rig.killedEverywhere('confirm', 'ignored');
    expect(outcomes.size).toBe(12);
    expectAlways(outcomes, ['charge']);
  });

  it('with a saga that succeeds: each of its steps moves its money once', async () => {
    expectAlways(await rig.killedEverywhere('saga', 'honoured'), ['flight', 'hotel', 'car']);
  });

  it('with a saga that fails for good: each step and each compensation moves its money once, in order', async () => {
    const outcomes = await rig.killedEverywhere('refused saga', 'honoured');
    expect([...outcomes.keys()]).toContain('before write $trip/flight/undo done');
    expectAlways(outcomes, ['flight', 'hotel', 'undo hotel', 'undo flight']);
  });
});

describe('a worker that is killed wherever it waits, and whose message comes again: other helpers', { timeout: 120_000 }, () => {
  it('`now`, `uuid` and `random` are the same on each attempt', async () => {
    expectSame(await rig.killedEverywhere('values', 'ignored'));
  });

  it('a row of its own is there twice if it dies between the row and the record; with `insertOnce`, once', async () => {
    expect((await rig.killedEverywhere('row', 'ignored')).get('after insert')).toEqual(['row', 'row']);
    expectAlways(await rig.killedEverywhere('row once', 'ignored'), ['row']);
  });
});

describe('a gateway whose reply is lost', () => {
  it.each([
    ['without a helper: the money moves twice', 'no helper', 'honoured', 2],
    ['with `ctx.key`, which it honours: the money moves once', 'keys alone', 'honoured', 1],
    ['with a step, and keys honoured: the money moves once', 'step', 'honoured', 1],
    ['with a step, and keys ignored: the money moves twice', 'step', 'ignored', 2],
    ['with `confirm`, and keys ignored: the money moves once', 'confirm', 'ignored', 1],
  ] as const)('%s', async (_, program, keys, times) => {
    const { gateway, finish, moved } = rig.message(program, keys);
    await gateway.disturb('lose its reply');
    expect((await finish()).verdict).toMatchObject({ action: 'ack' });
    expect(await moved()).toHaveLength(times);
  });
});

/** Delivers the message until its worker has been told that the outcome is unknown. */
async function unknown(deliver: () => Promise<Told | 'killed'>): Promise<void> {
  for (;;) {
    const { verdict } = (await deliver()) as Told;
    if (verdict.action !== 'retry') throw new Error(`Expected an outcome that is unknown, got ${JSON.stringify(verdict)}`);
    if ((verdict.error as { code?: string } | undefined)?.code === 'unknown-outcome') return;
    await new Promise((resolve) => setTimeout(resolve, verdict.afterMs));
  }
}

describe('a gateway that answers late, after its worker has died and the next one has asked', { timeout: 60_000 }, () => {
  it.each([
    // `confirm` is told that nothing has happened, because it has not happened yet.
    ['asked by a hasty `confirm`, and keys ignored: the money moves twice', 'confirm', 'ignored', 2],
    ['asked by a hasty `confirm`, and keys honoured: the money moves once', 'confirm', 'honoured', 1],
    // It answers `unknown` as long as the request may be on its way.
    ['asked by a `confirm` that looks at `ageMs`, and keys ignored: the money moves once', 'patient confirm', 'ignored', 1],
    ['asked by nobody, and keys honoured: the money moves once', 'step', 'honoured', 1],
  ] as const)('%s', async (_, program, keys, times) => {
    const { gateway, task, deliver, finish, moved } = rig.message(program, keys);
    await gateway.disturb('hold it');
    const victim = rig.start(task);
    while (!(await gateway.asked()).includes(`${task.id} charge`)) await new Promise((resolve) => setTimeout(resolve, 20));
    victim.child.kill('SIGKILL');
    await victim.ended;
    expect(await moved()).toEqual([]);
    if (program === 'patient confirm') {
      await unknown(deliver);
      await gateway.release();
    }
    expect((await finish()).verdict).toMatchObject({ action: 'ack' });
    await gateway.release();
    expect(await moved()).toHaveLength(times);
  });
});

describe('a worker that is stopped past its lease, overlaps the new owner, and goes on', { timeout: 60_000 }, () => {
  it.each([
    ['without a helper: the money moves twice', 'no helper', 'honoured', 'before charge', 2],
    ['in a step, before the effect, and keys honoured: the money moves once', 'step', 'honoured', 'before charge', 1],
    ['in a step, after the effect, and keys honoured: the money moves once', 'step', 'honoured', 'after charge', 1],
    // The zombie wakes up with nothing between it and the gateway.
    ['in a step, before the effect, and keys ignored: the money moves twice', 'step', 'ignored', 'before charge', 2],
    [
      'in a step, before the effect, and a gateway that compares the fence: the money moves once',
      'fenced step',
      'ignored',
      'before charge',
      1,
    ],
    [
      'before the note of a step with `confirm`, and keys ignored: the money moves once',
      'confirm',
      'ignored',
      'before write charge started',
      1,
    ],
    ['after that note, and keys ignored: the money moves twice', 'confirm', 'ignored', 'before charge', 2],
  ] as const)('%s', async (_, program, keys, place, times) => {
    expect(await rig.overtakenAt(place, program, keys)).toHaveLength(times);
  });
});
