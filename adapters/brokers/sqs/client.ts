import { ReceiverError, refuseOption } from '../../../src/errors.ts';

/** A message attribute, as SQS spells it. */
export interface SqsAttribute {
  readonly DataType?: string | undefined;
  readonly StringValue?: string | undefined;
  readonly BinaryValue?: Uint8Array | undefined;
}

/** A message as ReceiveMessage answers it: what the adapter reads of it. */
export interface SqsMessage {
  readonly MessageId?: string | undefined;
  readonly ReceiptHandle?: string | undefined;
  readonly Body?: string | undefined;
  readonly Attributes?: Readonly<Record<string, string | undefined>> | undefined;
  readonly MessageAttributes?: Readonly<Record<string, SqsAttribute>> | undefined;
}

/** What a batch request says of the entries that it refused, in an answer with HTTP status 200. */
export interface SqsFailure {
  readonly Id?: string | undefined;
  readonly Code?: string | undefined;
  readonly Message?: string | undefined;
  readonly SenderFault?: boolean | undefined;
}

/** The answer to a batch request. */
export interface SqsBatchAnswer<Success = { readonly Id?: string | undefined }> {
  readonly Successful?: readonly Success[] | undefined;
  readonly Failed?: readonly SqsFailure[] | undefined;
}

export interface SqsReceiveRequest {
  QueueUrl: string;
  MaxNumberOfMessages: number;
  WaitTimeSeconds: number;
  VisibilityTimeout: number;
  MessageSystemAttributeNames: 'All'[];
  MessageAttributeNames: string[];
  ReceiveRequestAttemptId?: string;
}

export interface SqsDeleteRequest {
  QueueUrl: string;
  Entries: { Id: string; ReceiptHandle: string }[];
}

export interface SqsVisibilityRequest {
  QueueUrl: string;
  Entries: { Id: string; ReceiptHandle: string; VisibilityTimeout: number }[];
}

export interface SqsSendEntry {
  Id: string;
  MessageBody: string;
  MessageAttributes?: Record<string, { DataType: string; StringValue?: string; BinaryValue?: Uint8Array }>;
  MessageGroupId?: string;
  MessageDeduplicationId?: string;
}

export interface SqsSendRequest {
  QueueUrl: string;
  Entries: SqsSendEntry[];
}

export interface SqsSent {
  readonly Id?: string | undefined;
  readonly MessageId?: string | undefined;
  readonly SequenceNumber?: string | undefined;
}

export interface SqsRequestOptions {
  abortSignal?: AbortSignal;
}

/** The subset of the SDK's aggregated `SQS` client that the adapter uses. */
export interface SqsCalls {
  receiveMessage(
    request: SqsReceiveRequest,
    options?: SqsRequestOptions,
  ): Promise<{ readonly Messages?: readonly SqsMessage[] | undefined }>;
  deleteMessageBatch(request: SqsDeleteRequest, options?: SqsRequestOptions): Promise<SqsBatchAnswer>;
  changeMessageVisibilityBatch(request: SqsVisibilityRequest, options?: SqsRequestOptions): Promise<SqsBatchAnswer>;
  sendMessageBatch(request: SqsSendRequest, options?: SqsRequestOptions): Promise<SqsBatchAnswer<SqsSent>>;
  getQueueAttributes(
    request: { QueueUrl: string; AttributeNames: 'All'[] },
    options?: SqsRequestOptions,
  ): Promise<{ readonly Attributes?: Readonly<Record<string, string | undefined>> | undefined }>;
  getQueueUrl(
    request: { QueueName: string; QueueOwnerAWSAccountId: string },
    options?: SqsRequestOptions,
  ): Promise<{ readonly QueueUrl?: string | undefined }>;
}

/** A plain `SQSClient`, which takes commands. */
export interface SqsCommands {
  send(command: never, options?: SqsRequestOptions): Promise<unknown>;
}

/** `SQS` or `SQSClient` of `@aws-sdk/client-sqs`, or anything that has the methods used here. */
export type SqsClient<Used extends keyof SqsCalls = keyof SqsCalls> = Pick<SqsCalls, Used> | SqsCommands;

const commandOf = {
  receiveMessage: 'ReceiveMessageCommand',
  deleteMessageBatch: 'DeleteMessageBatchCommand',
  changeMessageVisibilityBatch: 'ChangeMessageVisibilityBatchCommand',
  sendMessageBatch: 'SendMessageBatchCommand',
  getQueueAttributes: 'GetQueueAttributesCommand',
  getQueueUrl: 'GetQueueUrlCommand',
} as const satisfies Record<keyof SqsCalls, string>;

/** One shape for both kinds of client. @throws ReceiverError `invalid-option` if `client` is neither. */
export function sqsCalls<Used extends keyof SqsCalls>(client: SqsClient<Used>, used: readonly Used[]): Pick<SqsCalls, Used> {
  const given = client as Partial<Record<string, unknown>> | null | undefined;
  // The aggregated client has `send` too; its methods spare us from loading the command classes.
  if (used.every((name) => typeof given?.[name] === 'function')) return client as Pick<SqsCalls, Used>;
  if (typeof given?.['send'] !== 'function') refuseOption('client', 'an `SQS` or `SQSClient` of @aws-sdk/client-sqs', client);
  const sending = client as { send(command: unknown, options?: SqsRequestOptions): Promise<unknown> };
  const call = (name: Used) => async (request: unknown, options?: SqsRequestOptions) =>
    sending.send(new (await loadCommands())[commandOf[name]](request), options);
  return Object.fromEntries(used.map((name) => [name, call(name)])) as unknown as Pick<SqsCalls, Used>;
}

type Commands = Record<(typeof commandOf)[keyof SqsCalls], new (request: unknown) => unknown>;

let commands: Promise<Commands> | undefined;

/** Only a user of `SQSClient` gets here, and so has the package. */
function loadCommands(): Promise<Commands> {
  commands ??= import('@aws-sdk/client-sqs').then(
    (sdk) => sdk as unknown as Commands,
    (cause: unknown) => {
      commands = undefined;
      throw new ReceiverError(
        'invalid-option',
        'Expected the package `@aws-sdk/client-sqs` to be installed beside a plain `SQSClient`, and could not load it. Install it, or pass its aggregated `SQS` client.',
        { cause },
      );
    },
  );
  return commands;
}
