import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type StandardSchema, validate } from '../src/schema.ts';
import { actions, delivery, stand } from './support/stand.ts';

const invalid = (text: string) =>
  expect.objectContaining({ code: 'invalid-payload', message: `Expected the payload to fit its schema: ${text}` });

/** A schema made by hand, as the standard describes it. */
function schema<Output>(check: StandardSchema<Output>['~standard']['validate']): StandardSchema<Output> {
  return { '~standard': { version: 1, vendor: 'test', validate: check } };
}

describe('a zod schema', () => {
  const Order = z.object({
    id: z.string(),
    amount: z.number().positive().default(1),
    lines: z.array(z.object({ sku: z.string() })).optional(),
  });

  it('gives the payload as the schema makes it: defaults filled in, unknown members left out', async () => {
    expect(await validate(Order, { id: 'a', more: true })).toEqual({ id: 'a', amount: 1 });
  });

  it('transforms, also asynchronously', async () => {
    expect(
      await validate(
        z.string().transform(async (text) => text.length),
        'four',
      ),
    ).toBe(4);
  });

  it('is told by where and what, and never by the payload', async () => {
    const error = await validate(Order, { id: 7, amount: -1, lines: [{ sku: 'a' }, { sku: { secret: 'hunter2' } }] }).catch(
      (thrown: unknown) => thrown,
    );
    const { message } = error as Error;
    expect(error).toMatchObject({ name: 'ReceiverError', code: 'invalid-payload' });
    expect(message).toMatch(/^Expected the payload to fit its schema: id: /);
    expect(message).toMatch(/; amount: .*; lines\.1\.sku: /);
    expect(message).not.toContain('hunter2');
  });
});

describe('any Standard Schema', () => {
  it('may answer at once or later', async () => {
    expect(
      await validate(
        schema((value) => ({ value: `${value}!` })),
        'now',
      ),
    ).toBe('now!');
    expect(
      await validate(
        schema(async (value) => ({ value: `${value}!` })),
        'later',
      ),
    ).toBe('later!');
  });

  it('may be a function, as those of arktype are', async () => {
    const callable = Object.assign(
      () => 'unused',
      schema((value) => ({ value })),
    );
    expect(await validate(callable, 'payload')).toBe('payload');
  });

  it('may give undefined as its value', async () => {
    expect(
      await validate(
        schema(() => ({ value: undefined })),
        'payload',
      ),
    ).toBeUndefined();
  });

  it('refuses with issues, also asynchronously, also with an empty list of them', async () => {
    await expect(
      validate(
        schema(() => ({ issues: [{ message: 'no' }] })),
        1,
      ),
    ).rejects.toEqual(invalid('no'));
    await expect(
      validate(
        schema(async () => ({ issues: [{ message: 'no' }] })),
        1,
      ),
    ).rejects.toEqual(invalid('no'));
    await expect(
      validate(
        schema(() => ({ issues: [] })),
        1,
      ),
    ).rejects.toMatchObject({ code: 'invalid-payload' });
  });

  it('names paths of keys and of segments, with symbols and numbers in them', async () => {
    const issues = [
      { message: 'first', path: ['a', 0, Symbol('s')] },
      { message: 'second', path: [{ key: 'b' }, { key: 1 }] },
      { message: 'third', path: [] },
      { message: 'fourth', path: undefined },
      { message: 'fifth', path: [''] },
    ];
    await expect(
      validate(
        schema(() => ({ issues })),
        1,
      ),
    ).rejects.toEqual(invalid('a.0.Symbol(s): first; b.1: second; third; fourth; fifth'));
  });

  it('is told by its first five issues', async () => {
    const issues = Array.from({ length: 9 }, (_, i) => ({ message: `issue ${i}` }));
    await expect(
      validate(
        schema(() => ({ issues })),
        1,
      ),
    ).rejects.toEqual(invalid('issue 0; issue 1; issue 2; issue 3; issue 4'));
  });

  it('that throws or rejects is handed on as it is', async () => {
    const broken = new Error('broken schema');
    await expect(
      validate(
        schema(() => {
          throw broken;
        }),
        1,
      ),
    ).rejects.toBe(broken);
    await expect(
      validate(
        schema(() => Promise.reject(broken)),
        1,
      ),
    ).rejects.toBe(broken);
  });
});

describe('a receiver with a schema', () => {
  it('gives its handler what the schema makes', async () => {
    const seen: unknown[] = [];
    const { receiver } = stand((payload) => void seen.push(payload), { schema: z.object({ id: z.string().toUpperCase() }) });
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(seen).toEqual([{ id: 'A' }]);
  });

  it('dead-letters at once what the schema refuses, and runs no handler', async () => {
    let runs = 0;
    const { receiver } = stand(() => void runs++, { schema: z.object({ id: z.number() }) });
    const [verdict] = await receiver.process([delivery('a')]);
    expect(verdict).toMatchObject({ action: 'dead-letter', reason: 'invalid-payload', attempts: 1 });
    expect(runs).toBe(0);
  });

  it('tries again when the schema itself breaks: nothing is known about the payload', async () => {
    let broken = true;
    const flaky = schema(async (value) => {
      if (broken) throw new Error('the service behind the schema is down');
      return { value };
    });
    const { receiver } = stand(() => {}, { schema: flaky });
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['retry failed']);
    broken = false;
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['ack completed']);
  });
});
