import { describe, expect, it } from 'vitest';
import { deadLetterEntry } from '../../../../adapters/brokers/sqs/dead-letter.ts';
import { deliveryOf } from '../../../../adapters/brokers/sqs/delivery.ts';
import { bytesOf } from '../../../../adapters/brokers/sqs/entries.ts';
import { TerminalError, type Verdict } from '../../../../src/index.ts';
import { bodies, internalError, rig } from './rig.ts';

const text = (StringValue: string) => ({ DataType: 'String', StringValue });

describe('a message that can’t ever succeed', () => {
  it('is left to the redrive policy: given back sooner first and later then, until SQS moves it; never deleted', async () => {
    let runs = 0;
    const { model, queueUrl, deadUrl, start, world, requests } = rig(() => {
      runs++;
      throw new TerminalError('no such customer');
    });
    model.put(queueUrl, 'null', { MessageAttributes: { kind: text('order') } });
    await start();
    await world.advance(120_000);
    expect(runs).toBe(1);
    expect(requests('deleteMessageBatch')).toEqual([]);
    expect(bodies(model, queueUrl)).toEqual([]);
    expect(model.messages(deadUrl)[0]).toMatchObject({ id: 'message-1', body: 'null', attributes: { kind: text('order') } });
    expect(requests('changeMessageVisibilityBatch').map(({ Entries }) => Entries[0].VisibilityTimeout)).toEqual([1, 2, 4, 8, 16]);
  });

  it('is sent to the given queue with what happened, and deleted only when it has arrived there', async () => {
    const { model, queueUrl, deadUrl, start, world, requests, errors } = rig(
      () => {
        throw new TerminalError('no such customer');
      },
      { noRedrive: true, poller: { deadLetter: { queueUrl: 'https://sqs.eu-west-1.amazonaws.com/000000000000/dead' } } },
    );
    model.put(queueUrl, '{"id":1}', { MessageAttributes: { 'idempotency-key': text('order-1') } });
    const faults = [(request: any) => internalError(request, () => true), () => Promise.reject(new Error('reset'))];
    model.intercept = async (name, request, run) => {
      if (name !== 'sendMessageBatch') return run();
      expect(requests('deleteMessageBatch')).toEqual([]);
      return faults.shift()?.(request) ?? run();
    };
    await start();
    await world.advance(2_000);
    expect(model.messages(deadUrl).map(({ body, attributes }) => ({ body, attributes }))).toEqual([
      {
        body: '{"id":1}',
        attributes: {
          'idempotency-key': text('order-1'),
          'dead-letter-reason': text('terminal'),
          'dead-letter-id': text('message-1'),
          'dead-letter-source': text('work'),
          'dead-letter-attempts': { DataType: 'Number', StringValue: '1' },
          'dead-letter-detail': text('TerminalError: no such customer'),
        },
      },
    ]);
    expect(bodies(model, queueUrl)).toEqual([]);
    expect(requests('sendMessageBatch')).toHaveLength(3);
    expect(errors.map(({ during }) => during)).toEqual(['dead-letter', 'dead-letter']);
  });

  it('stays in its queue when the dead-letter queue refuses it, and comes again', async () => {
    const { model, queueUrl, deadUrl, start, world, requests } = rig(
      () => {
        throw new TerminalError('no');
      },
      { noRedrive: true, poller: { deadLetter: { queueUrl: 'https://sqs.eu-west-1.amazonaws.com/000000000000/dead' } } },
    );
    model.put(queueUrl, 'null');
    let refuses = true;
    model.intercept = async (name, _request, run) =>
      name === 'sendMessageBatch' && refuses ? { Failed: [{ Id: '0', Code: 'AccessDenied', SenderFault: true }] } : run();
    await start();
    await world.advance(500);
    expect(requests('deleteMessageBatch')).toEqual([]);
    expect(bodies(model, queueUrl)).toEqual(['null']);
    refuses = false;
    await world.advance(2_000);
    expect(bodies(model, deadUrl)).toEqual(['null']);
    expect(bodies(model, queueUrl)).toEqual([]);
  });

  it('goes to a FIFO dead-letter queue in its group, and a copy that is sent again is dropped there', async () => {
    const { model, queueUrl, deadUrl, start, world } = rig(
      () => {
        throw new TerminalError('no');
      },
      { fifo: true, noRedrive: true, poller: { deadLetter: { queueUrl: 'https://sqs.eu-west-1.amazonaws.com/000000000000/dead.fifo' } } },
    );
    model.put(queueUrl, 'null', { MessageGroupId: 'g', MessageDeduplicationId: 'd' });
    let lost = 1;
    model.intercept = async (name, _request, run) => {
      const answer = await run();
      if (name === 'sendMessageBatch' && lost-- > 0) throw new Error('the answer is lost');
      return answer;
    };
    await start();
    await world.advance(1_000);
    expect(model.messages(deadUrl).map(({ body, group, deduplicationId }) => ({ body, group, deduplicationId }))).toEqual([
      { body: 'null', group: 'g', deduplicationId: 'message-1' },
    ]);
    expect(bodies(model, queueUrl)).toEqual([]);
  });
});

describe('the attributes of a dead letter', () => {
  const verdict: Extract<Verdict, { action: 'dead-letter' }> = {
    action: 'dead-letter',
    reason: 'terminal',
    detail: 'a\u0000\ud800b',
    attempts: 3,
  };
  const url = 'https://sqs.eu-west-1.amazonaws.com/000000000000/dead';
  const entry = (attributes: number, body = 'x', more: Partial<typeof verdict> = {}) => {
    const MessageAttributes = Object.fromEntries(Array.from({ length: attributes }, (_, i) => [`a${i}`, text('v')]));
    const delivery = deliveryOf({ MessageId: 'm', ReceiptHandle: 'h', Body: body, MessageAttributes }, false, 0, 0)!;
    return deadLetterEntry(delivery, { ...verdict, ...more }, 'https://sqs/0/work', url);
  };
  const ours = (made: ReturnType<typeof entry>) => Object.keys(made.MessageAttributes!).filter((name) => name.startsWith('dead-letter-'));

  it('never push out original ones: ours take the room that is left, the reason first', () => {
    expect(ours(entry(5))).toHaveLength(5);
    expect(ours(entry(7))).toEqual(['dead-letter-reason', 'dead-letter-id', 'dead-letter-source']);
    const full = entry(10);
    expect(ours(full)).toEqual([]);
    expect(Object.keys(full.MessageAttributes!)).toHaveLength(10);
  });

  it('are those of the message, whatever they are called', () => {
    const MessageAttributes = JSON.parse(
      '{"__proto__":{"DataType":"String","StringValue":"p"},"constructor":{"DataType":"String","StringValue":"c"}}',
    );
    const delivery = deliveryOf({ MessageId: 'm', ReceiptHandle: 'h', Body: 'x', MessageAttributes }, false, 0, 0)!;
    const made = Object.entries(deadLetterEntry(delivery, verdict, 'https://sqs/0/work', url).MessageAttributes!);
    expect(made.slice(0, 3)).toEqual([
      ['__proto__', text('p')],
      ['constructor', text('c')],
      ['dead-letter-reason', text('terminal')],
    ]);
  });

  it('don’t make the message larger than SQS takes', () => {
    const made = entry(0, 'x'.repeat(1_048_576 - 60));
    expect(ours(made)).toEqual(['dead-letter-reason', 'dead-letter-id']);
    expect(bytesOf(made)).toBeLessThanOrEqual(1_048_576);
  });

  it('hold only characters that SQS takes, and no empty value', () => {
    expect(entry(0).MessageAttributes!['dead-letter-detail']).toEqual(text('a\ufffd\ufffdb'));
    expect(ours(entry(0, 'x', { detail: '' }))).not.toContain('dead-letter-detail');
  });
});
