import { SQS, SQSClient } from '@aws-sdk/client-sqs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type SqsClient, sqsCalls } from '../../../../adapters/brokers/sqs/client.ts';

afterEach(() => {
  vi.doUnmock('@aws-sdk/client-sqs');
  vi.resetModules();
});

describe('the client', () => {
  it('may be the SDK’s SQS, its SQSClient, or anything with the methods: no import of the SDK’s types is needed', () => {
    const fits: SqsClient[] = [new SQS({ region: 'x' }), new SQSClient({ region: 'x' })];
    expect(fits).toHaveLength(2);
  });

  it('is used by its methods where it has them, without loading the SDK', async () => {
    vi.doMock('@aws-sdk/client-sqs', () => {
      throw new Error('must not be loaded');
    });
    const client = { sendMessageBatch: async () => ({ Successful: [] }), send: () => Promise.reject(new Error('must not be called')) };
    const { sendMessageBatch } = sqsCalls(client as never, ['sendMessageBatch']);
    expect(await sendMessageBatch({ QueueUrl: 'x', Entries: [] })).toEqual({ Successful: [] });
  });

  it('gets commands where it only has `send`, with the signal passed on', async () => {
    const sent: [string, unknown, unknown][] = [];
    const client = { send: async (command: any, options: unknown) => void sent.push([command.constructor.name, command.input, options]) };
    const calls = sqsCalls(client as never, [
      'deleteMessageBatch',
      'changeMessageVisibilityBatch',
      'receiveMessage',
      'sendMessageBatch',
      'getQueueAttributes',
      'getQueueUrl',
    ]);
    const options = { abortSignal: new AbortController().signal };
    for (const name of Object.keys(calls) as (keyof typeof calls)[]) await calls[name]({ QueueUrl: name } as never, options);
    expect(sent).toEqual(
      ['DeleteMessageBatch', 'ChangeMessageVisibilityBatch', 'ReceiveMessage', 'SendMessageBatch', 'GetQueueAttributes', 'GetQueueUrl'].map(
        (name) => [`${name}Command`, { QueueUrl: name[0]!.toLowerCase() + name.slice(1) }, options],
      ),
    );
  });

  it('says what to install when the SDK can’t be loaded for a plain SQSClient', async () => {
    vi.doMock('@aws-sdk/client-sqs', () => {
      throw new Error('Cannot find package');
    });
    vi.resetModules();
    const fresh = await import('../../../../adapters/brokers/sqs/client.ts');
    const { sendMessageBatch } = fresh.sqsCalls({ send: async () => ({}) } as never, ['sendMessageBatch']);
    await expect(sendMessageBatch({ QueueUrl: 'x', Entries: [] })).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringContaining('Expected the package `@aws-sdk/client-sqs` to be installed'),
    });
  });
});
