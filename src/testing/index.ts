/** The contract of stores, as tests that any runner can run. */

/** Proves a worker of yours: kills it at each step, and tells the shortest story in which an effect is lost or repeated. */
export type { Fault, FaultKind, Schedule } from './prove/faults.ts';
export type { Effect, Expectation } from './prove/ledger.ts';
export type { Place, ProofDatabase, ProofTx, Worker } from './prove/place.ts';
export { CounterExample, type Proof, type ProveOptions, prove } from './prove/prove.ts';
export {
  type Clause,
  type ContractOptions,
  type JournalHarness,
  journalClauses,
  journalContract,
  runClause,
  type Skip,
  type StoreHarness,
  storeClauses,
  storeContract,
  type TestRunner,
  type TransactionalHarness,
  transactionalClauses,
  transactionalStoreContract,
} from './store-contract.ts';
/** A world whose time moves only when a test says so: the `world` of a receiver, a store or a poller. */
export { type VirtualWorld, virtualWorld } from './virtual-world.ts';
