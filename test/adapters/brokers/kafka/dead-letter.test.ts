import { createRequire } from 'node:module';
import { expect, it } from 'vitest';
import { deadLettering } from '../../../../adapters/brokers/kafka/dead-letter.ts';
import { deliveryOf, keyOrder } from '../../../../adapters/brokers/kafka/delivery.ts';
import { realWorld } from '../../../../src/index.ts';

// What kafkajs makes of a record on its way to the broker and back.
const kafkajs = createRequire(import.meta.resolve('kafkajs'));
const encode = kafkajs('./src/protocol/recordBatch/record/v0') as (record: object) => { buffer: Buffer };
const decode = kafkajs('./src/protocol/recordBatch/record/v0/decoder') as (decoder: object, context: object) => Record<string, any>;
const Encoder = kafkajs('./src/protocol/encoder') as new () => any;
const Decoder = kafkajs('./src/protocol/decoder') as new (bytes: Buffer) => any;

/** As a consumer is given it. Headers in their order, each by itself. */
function received(key: Buffer | null, value: Buffer | null, headers: readonly (readonly [name: string, value: Buffer | null])[]) {
  const encoder = new Encoder().writeInt8(0).writeVarLong(0).writeVarInt(0).writeVarIntBytes(key).writeVarIntBytes(value);
  encoder.writeVarIntArray(headers.map(([name, bytes]) => new Encoder().writeVarIntString(name).writeVarIntBytes(bytes)));
  return decode(new Decoder(encoder.buffer), { firstOffset: '7', firstTimestamp: '1767225600000', magicByte: 2 });
}

/** What arrives in the dead-letter topic. */
async function copyOf(raw: Record<string, any>) {
  const errors: unknown[] = [];
  const over = new AbortController();
  const copies: Record<string, any>[] = [];
  const send = async ({ messages: [message] }: { messages: object[] }) => {
    const decoder = new Decoder(encode(message!).buffer);
    // Its length, which consumers are not given.
    decoder.readVarInt();
    copies.push(decode(decoder, { firstOffset: '0', firstTimestamp: '0', magicByte: 2 }));
  };
  const putAside = deadLettering({ producer: { send }, topic: 'dead' }, realWorld, (error) => {
    errors.push(error);
    over.abort();
  });
  const delivery = deliveryOf('orders', 3, raw as never, keyOrder);
  await putAside(delivery, { action: 'dead-letter', reason: 'terminal', detail: 'no', attempts: 2 }, over.signal);
  expect(errors).toEqual([]);
  const { key, value, headers } = copies[0]!;
  return { key, value, headers: Object.entries(headers).filter(([name]) => !name.startsWith('dead-letter-')) };
}

it('a dead letter has key, value and headers as they were: none, bytes that are no text, and names that come twice', async () => {
  const headers = [
    ['trace', Buffer.from('a')],
    ['binary', Buffer.from([0xff, 0x00])],
    ['trace', Buffer.from([0xfe])],
    ['empty', Buffer.alloc(0)],
  ] as const;
  expect(await copyOf(received(null, null, headers))).toEqual({
    key: null,
    value: null,
    headers: [
      ['trace', [Buffer.from('a'), Buffer.from([0xfe])]],
      ['binary', Buffer.from([0xff, 0x00])],
      ['empty', Buffer.alloc(0)],
    ],
  });
  expect(await copyOf(received(Buffer.from([0xff]), Buffer.alloc(0), []))).toEqual({
    key: Buffer.from([0xff]),
    value: Buffer.alloc(0),
    headers: [],
  });
});

it.each([
  ['without a value, which kafkajs can’t send', [['none', null]], []],
  [
    'that comes twice, once without a value',
    [
      ['trace', null],
      ['trace', Buffer.from('a')],
    ],
    [['trace', Buffer.from('a')]],
  ],
  // What kafkajs gives of these has the property of all objects before it.
  ['called constructor', [['constructor', Buffer.from('a')]], ['a']],
  ['called __proto__', [['__proto__', Buffer.from('a')]], ['a']],
] as const)('a header %s does not keep a dead letter back', async (_, headers, expected) => {
  const copy = await copyOf(received(Buffer.from('k'), Buffer.from('v'), headers as never));
  // On its way back kafkajs does the same to it.
  if (expected[0] === 'a') expect(copy.headers).toEqual([[headers[0]![0], [expect.anything(), Buffer.from('a')]]]);
  else expect(copy.headers).toEqual(expected);
});
