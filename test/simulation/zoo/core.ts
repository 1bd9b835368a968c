import { type Bug, leased, transactional } from './bug.ts';

/** Bugs of the way through the receiver. */
export const coreBugs: readonly Bug[] = [
  {
    name: 'marks the message as done before its handler runs',
    wild: 'Watermill deduplicator, Spring Integration IdempotentReceiver, Camel eager (W4, A 1.1, 1.2)',
    look: leased,
    patches: [
      {
        file: 'src/leased.ts',
        from: "tell('claimed', job, { attempt: claimed.attempt, orphaned: claimed.orphaned });",
        to: "$&\n      await store.settle([endOf(core, job, { as: 'completed' })]);",
      },
    ],
  },
  {
    name: 'acks a duplicate while the first delivery is still running',
    wild: 'Tapjoy chore 4.4.0 (W27, S 1.6)',
    look: leased,
    patches: [
      { file: 'src/leased.ts', from: "return retry(core, job, 'busy', afterMs);", to: "return { action: 'ack', outcome: 'duplicate' };" },
    ],
  },
  {
    name: 'acks although its claim was lost meanwhile',
    wild: 'AWS Powertools: a late owner completes over the new one (W8)',
    look: leased,
    patches: [{ file: 'src/core.ts', from: "if (settled === 'ok') return verdict();", to: 'return verdict();' }],
  },
  {
    name: 'acks before the record is durable',
    wild: 'kafkajs autoCommit, early deletes (W7); Jepsen NATS 2.12.1: ack before fsync',
    look: leased,
    patches: [
      {
        file: 'src/core.ts',
        from: 'const [settled] = await core.store!.settle([end]);',
        to: "const settled = 'ok' as string;\n        core.store!.settle([end]).catch(() => {});",
      },
    ],
  },
  {
    name: 'takes an unknown outcome of a settle for success',
    wild: 'lost replies swallowed (W13)',
    look: leased,
    patches: [{ file: 'src/core.ts', from: 'if (!again) return storeTrouble(core, job, error);', to: 'if (!again) return verdict();' }],
  },
  {
    name: 'runs the handler when the store can’t be reached',
    wild: 'fail-open middlewares (W15)',
    look: leased,
    patches: [{ file: 'src/leased.ts', from: "settings.onStoreDown === 'run' ? ", to: 'true ? ' }],
  },
  {
    name: 'computes the key again when it settles',
    wild: 'Camel CAMEL-24091: headers mutated by the route (A 7.1)',
    look: leased,
    patches: [
      {
        file: 'src/core.ts',
        from: 'return { key, token, retainMs: settings.retentionMs, ...ending };',
        to: "return { key: key.split('').reverse().join(''), token, retainMs: settings.retentionMs, ...ending };",
      },
    ],
  },
  {
    name: 'acks a copy within a batch though the first one failed',
    wild: 'MassTransit #2502 and its like (W28, A 7.11)',
    look: leased,
    patches: [
      {
        file: 'src/core.ts',
        from: "if (leader.action !== 'ack') return leader;",
        to: "if (leader.action !== 'ack') return { action: 'ack', outcome: 'duplicate' };",
      },
    ],
  },
  {
    name: 'goes on with the group after a failure in it',
    wild: 'batches that skip what failed (W30), offset committed past a failure (W31)',
    look: [['leased', 'fifo']],
    patches: [{ file: 'src/leased.ts', from: "if (job.verdict!.action !== 'retry') continue;", to: 'continue;' }],
  },
  {
    name: 'starts a handler although its lease has ended while it waited for its turn',
    wild: 'prefetch buffers (W9, S 1.5 row 3)',
    look: leased,
    patches: [{ file: 'src/leased.ts', from: "if (lease.over) return await unstarted(job, 'expired');", to: '' }],
  },
  {
    name: 'counts the lease from the reply instead of from the request',
    wild: 'clients that start their own deadline late (W10)',
    look: leased,
    patches: [
      {
        file: 'src/leased.ts',
        from: 'claim(asks[i]!, claimedAt);',
        to: 'claim(asks[i]!, clock.now());',
      },
    ],
  },
  {
    name: 'does not renew its claims',
    wild: 'fixed lock times: Powertools, most Redis locks (A 0, row heartbeat)',
    look: leased,
    patches: [{ file: 'src/lease.ts', from: 'if (claimed.length > 0)', to: 'if (claimed.length > 9e9)' }],
  },
  {
    name: 'renews its claims at the last moment',
    wild: 'leader elections whose renewal deadline is near the lease: clocks that run at another rate (W21)',
    look: leased,
    patches: [{ file: 'src/lease.ts', from: 'const beatMs = leaseMs / 3;', to: 'const beatMs = leaseMs * 0.98;' }],
  },
  {
    name: 'handles what is older than it remembers',
    wild: 'replays and redrives after the retention: no inbox asks for the age (W23)',
    look: [...leased, ...transactional],
    patches: [{ file: 'src/core.ts', from: 'if (ageMs <= settings.retentionMs) return undefined;', to: 'return undefined;' }],
  },
  {
    name: 'gives milliseconds to a store that counts in seconds',
    wild: 'Powertools Java #1281, Python #4759: seconds and milliseconds mixed up',
    look: leased,
    patches: [{ file: 'src/job.ts', from: 'leaseMs: settings.leaseMs,', to: 'leaseMs: settings.leaseMs / 1_000,' }],
  },
  {
    name: 'uses the same token for every claim',
    wild: 'locks without a random value; the Redis documentation asks for 20 random bytes (W8)',
    look: leased,
    patches: [{ file: 'src/job.ts', from: 'token: options.token(),', to: "token: 'locked'," }],
  },
  {
    name: 'remembers a key as done before the store has it',
    wild: 'local caches that are filled first: Camel Kafka repository (A 1.1)',
    look: leased,
    patches: [
      {
        file: 'src/leased.ts',
        from: "return {\n      ending: { as: 'completed', result: ended.encoded },",
        to: 'core.cache.add(job.key, { fingerprint: job.fingerprint, result: ended.encoded, at: clock.now() });\n    $&',
      },
    ],
  },
  {
    name: 'answers from its cache without looking at the payload',
    wild: 'Powertools cache and payload validation (W26)',
    look: leased,
    patches: [{ file: 'src/cache.ts', from: 'entry && entry.fingerprint === fingerprint &&', to: 'entry &&' }],
  },
  {
    name: 'gives the answers of one call to another',
    wild: 'batching clients that lose count: response replayed across users (A 7.21)',
    look: leased,
    patches: [{ file: 'src/coalesce.ts', from: 'at += call.items.length;', to: '' }],
  },
  {
    name: 'does not give back what it has not started when it stops',
    wild: 'claims left until their leases end at each deployment (W37)',
    look: leased,
    patches: [
      {
        file: 'src/leased.ts',
        from: "function unstarted(job: Job, reason: 'stopped' | 'expired'): Promise<Verdict> {",
        to: '$&\n    job.lease!.unclaim();\n    return Promise.resolve(retry(core, job, reason, 0));',
      },
    ],
  },
  {
    name: 'leaves its heartbeat running after stop',
    wild: 'sqs-consumer #376: heartbeat not cleared (S 1.6)',
    patches: [
      {
        file: 'src/lease.ts',
        from: 'if (kept.size > 0) return;\n    timer?.cancel();',
        to: 'if (kept.size > 0) return;',
      },
    ],
    look: leased,
  },
  {
    name: 'uses a hash that is too short',
    wild: 'Watermill: Adler-32; Powertools: md5 (A 7.19)',
    look: leased,
    patches: [
      { file: 'src/key.ts', from: 'return digest([scopeName, ...all], 32);', to: 'return digest([scopeName, ...all], 1).padEnd(32);' },
    ],
  },
  {
    name: 'drops the result of a duplicate',
    wild: 'Powertools replays B as A; libraries that return undefined (W6)',
    look: leased,
    patches: [
      {
        file: 'src/core.ts',
        from: "return { action: 'ack', outcome: 'duplicate', result };",
        to: "return { action: 'ack', outcome: 'duplicate' };",
      },
    ],
  },
  {
    name: 'does not count the attempts of messages that kill the process',
    wild: 'counters in memory or in the transaction that dies (W35)',
    look: transactional,
    patches: [{ file: 'src/transactional.ts', from: 'core.store !== undefined && lane.some(', to: 'false && lane.some(' }],
  },
  {
    name: 'counts the attempt of another’s message in the transaction that runs it',
    wild: 'counters in the transaction that dies (W35)',
    look: transactional,
    patches: [{ file: 'src/transactional.ts', from: 'job.answer = answer;\n        return;', to: 'return;' }],
  },
  {
    name: 'claims again under the token of a claim that got no answer',
    wild: 'Kafka’s own protocol: a delayed EndTxn ends a later transaction (Jepsen on Bufstream 0.1.0)',
    look: transactional,
    patches: [
      {
        file: 'src/transactional.ts',
        from: 'await Promise.all(lanes.map((lane) => oneByOne(lane, (job) => job.preset ?? storeTrouble(core, job, error))));\n      return;',
        to: 'void error;\n      again = new Set(lanes);',
      },
    ],
  },
  {
    name: 'records a failed handler as done',
    wild: 'eachBatchAutoResolve and swallowed errors (W4, 3.5)',
    look: transactional,
    patches: [{ file: 'src/unit-of-work.ts', from: 'this.#end(job, ending);\n      return verdict();', to: 'return verdict();' }],
  },
  {
    name: 'remembers as done what a transaction has recorded before it commits',
    wild: 'PostHog deduplicator: state written before the fence (A 7.13)',
    look: transactional,
    patches: [
      {
        file: 'src/unit-of-work.ts',
        from: 'cache: { ...cache, add: (key, entry) => void this.#later.push(() => cache.add(key, entry)) },',
        to: '',
      },
    ],
  },
];
