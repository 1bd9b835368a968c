import type { BrokerKind, Way } from '../scenario.ts';

/** A bug that somebody has shipped, as a change of our own code that makes the same mistake. */
export interface Bug {
  readonly name: string;
  /** Where it happened, or who describes it. W, A, S and K: sections of the research notes on failure windows, on other systems, on SQS and on Kafka. */
  readonly wild: string;
  readonly patches: readonly Patch[];
  /** Where the simulator looks for it, one after another. Default: leased, on both brokers. */
  readonly look?: readonly (readonly [Way, BrokerKind])[];
  /** Only the contract suite can see it: the world of the simulator does not last so long. */
  readonly contractOnly?: boolean;
}

/** An exact text of a file and what takes its place. A text that is not there, or is there twice, fails loudly: the bug has to be moved. */
export interface Patch {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

type Look = NonNullable<Bug['look']>;

export const leased: Look = [
  ['leased', 'standard'],
  ['leased', 'fifo'],
];
export const transactional: Look = [
  ['transactional', 'standard'],
  ['transactional', 'fifo'],
];
export const kafka: Look = [
  ['leased', 'kafka'],
  ['transactional', 'kafka'],
];
