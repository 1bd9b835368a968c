import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it } from 'vitest';
import { sqliteOutbox } from '../../adapters/stores/sqlite/index.ts';
import { message } from './outbox-contract.ts';

const complains = (code: string, complaint: string) => expect.objectContaining({ code, message: expect.stringContaining(complaint) });

describe('what is published', () => {
  const db = new DatabaseSync(':memory:');
  const outbox = sqliteOutbox(db, { destinations: ['orders', 'mails'] });

  it.each<[string, string, unknown, string]>([
    ['an unknown destination', 'other', message('x'), 'Expected a destination of this outbox (orders, mails), got "other"'],
    ['null', 'orders', null, 'Expected a message `{ body, … }`, got null'],
    ['text', 'orders', 'text', 'Expected a message `{ body, … }`, got "text"'],
    ['a function', 'orders', () => 1, 'Expected a message `{ body, … }`, got a function'],
    ['no body', 'orders', {}, 'Expected a body, got undefined'],
    ['a function as body', 'orders', { body: () => 1 }, 'Expected a body, got a function'],
    ['a body that JSON does not have', 'orders', { body: 10n }, 'Expected a body that is text, bytes, null or can be JSON, got '],
    ['a lone surrogate', 'orders', { body: '\ud800' }, 'Expected a body of well-formed text, got a lone surrogate'],
    ['an id that is no text', 'orders', { body: 'x', id: 7 }, 'Expected an id that can be a key, got '],
    ['an id with NUL', 'orders', { body: 'x', id: 'a\0b' }, 'Expected an id without NUL, got "a\\u0000b"'],
    ['an ordering key of nothing', 'orders', { body: 'x', orderingKey: ' ' }, 'Expected an ordering key that can be a key, got '],
    ['an ordering key with NUL', 'orders', { body: 'x', orderingKey: '\0' }, 'Expected an ordering key without NUL, got '],
    ['a header that is no text', 'orders', { body: 'x', headers: { n: 1 } }, 'Expected header "n" to be text, got 1'],
    ['a header without a name', 'orders', { body: 'x', headers: { '': 'v' } }, 'Expected header "" to be text, got "v"'],
  ])('is refused if it is %s, in words', (_, destination, given, complaint) => {
    db.exec('begin');
    try {
      expect(() => outbox.publish(db, destination as 'orders', given as never)).toThrow(complains('invalid-message', complaint));
    } finally {
      db.exec('rollback');
    }
  });

  it('is refused outside a transaction, in words', () => {
    expect(() => outbox.publish(db, 'orders', message('x'))).toThrow(
      complains('invalid-message', 'Expected a transaction that is open, got a connection or pool without one: '),
    );
  });
});

describe('the destinations of an outbox', () => {
  const make = (destinations: unknown) => sqliteOutbox(new DatabaseSync(':memory:'), { destinations: destinations as string[] });

  it.each<[string, unknown]>([
    ['none at all', undefined],
    ['text', 'orders'],
    ['an object that looks like a list', { length: 1, 0: 'orders' }],
    ['an empty list', []],
    ['a name twice', ['orders', 'orders']],
  ])('are not %s', (_, destinations) => {
    expect(() => make(destinations)).toThrow(complains('invalid-option', 'Expected `destinations` to be a list of names, got'));
  });

  it.each([[''], ['a b'], [' orders'], ['orders '], ['a,b'], ['ü'], ['x'.repeat(201)], [7], [null], [['orders']]])(
    'are not named %j',
    (name) => {
      expect(() => make(['orders', name])).toThrow(
        complains('invalid-option', 'Expected `destinations` to be names of 1 to 200 letters, digits and _ . : / -, got'),
      );
    },
  );

  it('have names such as queues, topics and URLs have', () => {
    const names = ['orders.v1', 'https://sqs.example/1/q-a', 'a_b', 'x'.repeat(200)];
    expect(make(names).destinations).toEqual(names);
  });
});
