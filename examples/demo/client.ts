import { flushCompileCache } from 'node:module';
import { SQS } from '@aws-sdk/client-sqs';

/** The real SDK, pointed at the queues of this demo. */
export function sqsClient(endpoint: string): SQS {
  return new SQS({ endpoint, region: 'us-east-1', credentials: { accessKeyId: 'demo', secretAccessKey: 'demo' } });
}

/** What a worker process gets as its only argument. */
export interface Equipment {
  readonly endpoint: string;
  readonly queueUrls: readonly string[];
  /** The SQLite file that all workers of one side share. */
  readonly file: string;
}

/** What a worker process tells the main one, for the view and for the chaos hand. */
export type Told = 'delivered' | 'begun' | 'checking' | 'duplicate';

export function equipment(): Equipment {
  // Node keeps compiled code at exit, which most workers here don't live to see. It makes the next ones start faster.
  setTimeout(flushCompileCache, 1_000).unref();
  return JSON.parse(process.argv[2]!) as Equipment;
}

export function tell(what: Told): void {
  process.send?.(what);
}
