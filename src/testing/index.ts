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
