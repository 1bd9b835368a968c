/* The contract suite on `node:test`, run by store-contract.test.ts in a process of its own. */
import { describe, it } from 'node:test';
import { memoryStore } from '../../adapters/stores/memory.ts';
import { storeContract } from '../../src/testing/index.ts';

storeContract({
  describe,
  it,
  name: 'memoryStore',
  open() {
    let now = 0;
    const elapse = (ms: number) => {
      now += ms;
    };
    return { store: memoryStore({ now: () => now }), elapse };
  },
  skip: [
    { clause: '14', reason: 'nothing in memory survives the process' },
    { clause: '15', reason: 'nobody else can write these records' },
  ],
});
