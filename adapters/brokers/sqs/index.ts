/** Amazon SQS, standard and FIFO: a poller that obeys a receiver, and a sender whose messages can be told apart when they come twice. */
export type { SqsCalls, SqsClient, SqsCommands, SqsMessage } from './client.ts';
export type { SqsDelivery } from './delivery.ts';
export { type SqsDestinationOptions, sqsDestination } from './destination.ts';
export type { SqsActivity } from './link.ts';
export type { SqsDeadLetter, SqsPollerOptions } from './options.ts';
export { type SqsPoller, sqsPoller } from './poller.ts';
export type { SqsSendResult } from './send-batch.ts';
export { type SqsSender, type SqsSenderOptions, sqsSender } from './sender.ts';
