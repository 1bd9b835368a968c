import type { Mutant } from './mutants/base.ts';
import { claimMutants } from './mutants/claim.ts';
import { lifetimeMutants } from './mutants/lifetime.ts';
import { ownershipMutants } from './mutants/ownership.ts';

export { baseHarness } from './mutants/base.ts';

/** Stores that are wrong, each in one way that has been seen in the wild or is easily made. */
export const mutants: readonly Mutant[] = [...claimMutants, ...ownershipMutants, ...lifetimeMutants];
