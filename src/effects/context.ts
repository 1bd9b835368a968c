import type { RunSaga } from './saga.ts';
import type { Step } from './step.ts';

/** What a handler gets beside the rest where there is a journal. */
export interface StepsContext {
  /** Does something once in the life of the message: later attempts are given its result. See {@link Step}. */
  readonly step: Step;
  /** Steps that are undone together. See {@link RunSaga}. */
  readonly saga: RunSaga;
  /** The time at which it was first asked for, in milliseconds since the Unix epoch, on that worker's clock. It costs as much as a step. */
  now(): Promise<number>;
}
