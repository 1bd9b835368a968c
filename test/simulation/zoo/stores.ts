import { type Bug, leased, transactional } from './bug.ts';

const memory = 'adapters/stores/memory.ts';

/** Bugs of stores, of their drivers, and of how their answers are read. */
export const storeBugs: readonly Bug[] = [
  {
    name: 'settles without comparing the token',
    wild: 'AWS Powertools: a late failure deletes the record of the new owner; Camel CAMEL-24484 (W8, A 7.2)',
    look: leased,
    patches: [{ file: memory, from: 'record.token !== end.token', to: 'false' }],
  },
  {
    name: 'takes the ending of a claim that is gone for done',
    wild: 'updates of no row, and updates that insert: AWS Powertools writes its record without a condition (W8, W19)',
    look: leased,
    patches: [
      {
        file: memory,
        from: "if (!record || record.token !== end.token) return 'fenced';",
        to: "if (!record) return 'ok';\n    if (record.token !== end.token) return 'fenced';",
      },
    ],
  },
  {
    name: 'renews without comparing the token',
    wild: 'hand-written Redis locks: PEXPIRE on whatever is there (W8)',
    look: leased,
    patches: [{ file: memory, from: 'record.token !== hold.token', to: 'false' }],
  },
  {
    name: 'takes its own claim, sent twice, for somebody else’s',
    wild: 'ioredis re-sends SET NX after a lost reply; AWS SDK retries of conditional puts (W12)',
    look: leased,
    patches: [{ file: memory, from: 'if (record.token === ask.token) {', to: 'if (false) {' }],
  },
  {
    name: 'never ends a claim whose owner has died',
    wild: 'SETNX and a crash before EXPIRE; Wolverine #1876: expiry null (W2, A 7.8)',
    look: leased,
    patches: [{ file: memory, from: 'return remainingMs > 0 ? ', to: 'return remainingMs > -1e12 ? ' }],
  },
  {
    name: 'gives a claim to whoever asks: looks first, writes later',
    wild: 'GET then SET (W1)',
    look: leased,
    patches: [
      {
        file: memory,
        from: 'claim: each(claimOne),',
        to: "claim: each((ask, at) => (find(ask.key, at)?.state === 'claimed' ? take(ask, at, 1, false) : claimOne(ask, at))),",
      },
    ],
  },
  {
    name: 'compares leases with the clock of the caller',
    wild: 'Powertools: Date.now() in the condition (W21)',
    look: leased,
    patches: [
      {
        file: 'test/simulation/stores.ts',
        from: 'let inner = make(() => kernel.now);',
        to: 'let skew = 0;\n  let inner = make(() => kernel.now + skew);',
      },
      {
        file: 'test/simulation/stores.ts',
        from: "link.call('claim', () => store.claim(asks))",
        to: "link.call('claim', () => {\n        skew = _worker.clock.wall() - kernel.now - 1767225600000;\n        const answer = store.claim(asks);\n        return answer;\n      })",
      },
    ],
  },
  {
    name: 'begins its fences again when a record is gone',
    wild: 'Redis counters with a time to live; sequences after a failover (W18, 3.1)',
    contractOnly: true,
    patches: [{ file: memory, from: 'const fence = ++lastFence;', to: 'const fence = (find(ask.key)?.fence ?? 0) + 1;' }],
  },
  {
    name: 'does not raise the fence when it takes a claim over',
    wild: 'locks whose fencing token is the version of the record (W18)',
    look: leased,
    patches: [{ file: memory, from: 'const fence = ++lastFence;', to: 'const fence = orphaned ? find(ask.key)!.fence : ++lastFence;' }],
  },
  {
    name: 'parks without ever counting',
    wild: 'messages that kill their process, for ever (W35)',
    look: leased,
    patches: [{ file: memory, from: 'take(ask, at, record.attempts + 1, true,', to: 'take(ask, at, record.attempts, true,' }],
  },
  {
    name: 'purges claims that are held',
    wild: 'cleaners by age: Wolverine #8, #3116 (W43, A 7.9)',
    look: leased,
    patches: [
      {
        file: memory,
        from: 'if (record.expiresAt > now()) continue;\n        records.delete',
        to: 'if (record.writtenAt + 500 > now()) continue;\n        records.delete',
      },
    ],
  },
  {
    name: 'remembers a completed message no longer than a lease',
    wild: 'record TTL set to the lock TTL (W24)',
    look: leased,
    patches: [
      {
        file: memory,
        from: 'lease(record, at, 0, end.retainMs);',
        to: 'lease(record, at, 0, Math.min(end.retainMs, record.leaseUntil - at));',
      },
    ],
  },
  {
    name: 'does not compare payloads',
    wild: 'most inboxes: same id with another payload is dropped (W26, A 0)',
    look: leased,
    patches: [{ file: memory, from: "if (record.fingerprint !== '' &&", to: "if (false && record.fingerprint !== '' &&" }],
  },
  {
    name: 'loses what was written in its last second when it restarts',
    wild: 'Redis appendfsync everysec; Jepsen NATS 2.12.1 (W19, 3.1)',
    look: leased,
    patches: [
      { file: 'test/simulation/stores.ts', from: 'if (relaxed) {', to: 'if (true) {' },
      {
        file: 'test/simulation/stores.ts',
        from: '      for (const key of owners.lose(',
        to: '      if (relaxed) for (const key of owners.lose(',
      },
    ],
  },
  {
    name: 'takes a commit in doubt for done',
    wild: 'COMMIT cut off looks the same before and after the server (W14)',
    look: transactional,
    patches: [
      { file: 'src/testing/virtual/units.ts', from: "if (outcome === 'aborted') throw new Aborted('The commit did not arrive');", to: '' },
    ],
  },
  {
    name: 'leaves the effects of a failed handler in the transaction',
    wild: 'one transaction for a batch, without savepoints (W36)',
    look: transactional,
    patches: [{ file: 'src/testing/virtual/database.ts', from: 'tx.effects = tx.effects.slice(0, before.effects);', to: '' }],
  },
  {
    name: 'reads a snapshot that is older than the commit that won',
    wild: 'Spring JdbcMetadataStore under REPEATABLE READ (A 7.24)',
    look: transactional,
    patches: [{ file: 'src/testing/virtual/database.ts', from: 'if (this.rows.get(key) === row) continue;', to: 'continue;' }],
  },
];
