/** What can happen to one step of a process: a request that it sends to the outside. */
export const faults = [
  'killed before',
  'killed after',
  'reply lost',
  'request lost',
  'stands still before',
  'stands still after',
  'copy comes',
] as const;
export type FaultKind = (typeof faults)[number];

/** One fault: at which step of the run, counted from 0, and what. */
export interface Fault {
  readonly step: number;
  readonly kind: FaultKind;
}

/** The faults of one run, by rising step. */
export type Schedule = readonly Fault[];

/** What happens, told as a sentence about the process. `op` is the step. */
export const told: Readonly<Record<FaultKind, (op: string) => string>> = {
  'killed before': (op) => `is killed before it can ${op}`,
  'killed after': (op) => `is killed before it learns that it did ${op}`,
  'reply lost': (op) => `gets a network error, although it did ${op}`,
  'request lost': (op) => `gets a network error, and did not ${op}`,
  'stands still before': (op) => `stands still for so long, before it can ${op}, that others take over`,
  'stands still after': (op) => `stands still for so long, after it did ${op}, that others take over`,
  'copy comes': () => 'is not alone: a copy of each message comes to another process',
};
