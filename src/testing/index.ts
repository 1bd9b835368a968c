/** The contract of stores, as tests that any runner can run. */
export {
  type Clause,
  type ContractOptions,
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
