import { beforeAll, expect, it } from 'vitest';
import { read } from '../support/package.ts';
import { service } from '../support/services/index.ts';
import { unique } from '../support/unique.ts';

/* The conditions that the README gives for DynamoDB, on DynamoDB Local, without an SDK. */

let endpoint: string;
const table = unique('conditional');

async function dynamodb(action: string, request: object): Promise<unknown> {
  const response = await fetch(endpoint, {
    method: 'POST',
    headers: {
      'content-type': 'application/x-amz-json-1.0',
      'x-amz-target': `DynamoDB_20120810.${action}`,
      authorization: 'AWS4-HMAC-SHA256 Credential=local/20260101/local/dynamodb/aws4_request, SignedHeaders=host, Signature=none',
    },
    body: JSON.stringify(request),
  });
  const answer = (await response.json()) as { __type?: string };
  return response.ok ? 'written' : String(answer.__type).replace(/^.*#/, '');
}

beforeAll(async () => {
  ({ endpoint } = await service('dynamodb'));
  const made = await dynamodb('CreateTable', {
    TableName: table,
    BillingMode: 'PAY_PER_REQUEST',
    KeySchema: [{ AttributeName: 'pk', KeyType: 'HASH' }],
    AttributeDefinitions: [{ AttributeName: 'pk', AttributeType: 'S' }],
  });
  expect(made).toBe('written');
});

/** Writes an item with numbers under a condition that is in the README. */
function put(pk: string, numbers: Record<string, number>, condition: string, values: Record<string, number> = {}): Promise<unknown> {
  expect(read('README.md')).toContain(`\`${condition}\``);
  const typed = (all: Record<string, number>) => Object.fromEntries(Object.entries(all).map(([name, n]) => [name, { N: String(n) }]));
  return dynamodb('PutItem', {
    TableName: table,
    Item: { pk: { S: pk }, ...typed(numbers) },
    ConditionExpression: condition,
    ...(Object.keys(values).length > 0 && { ExpressionAttributeValues: typed(values) }),
  });
}

const refused = 'ConditionalCheckFailedException';

it('an item is put once', async () => {
  expect(await put('once', { cents: 1 }, 'attribute_not_exists(pk)')).toBe('written');
  expect(await put('once', { cents: 2 }, 'attribute_not_exists(pk)')).toBe(refused);
});

it('an item is changed if it has the version that was read', async () => {
  await put('versioned', { version: 1 }, 'attribute_not_exists(pk)');
  expect(await put('versioned', { version: 2 }, 'version = :version', { ':version': 1 })).toBe('written');
  expect(await put('versioned', { version: 2 }, 'version = :version', { ':version': 1 })).toBe(refused);
});

it('a first write, the same fence again and a greater one are taken, a smaller one is refused', async () => {
  const condition = 'attribute_not_exists(fence) OR fence <= :fence';
  const outcomes: unknown[] = [];
  for (const fence of [2, 2, 3, 2]) outcomes.push(await put('fenced', { fence }, condition, { ':fence': fence }));
  expect(outcomes).toEqual(['written', 'written', 'written', refused]);
});
