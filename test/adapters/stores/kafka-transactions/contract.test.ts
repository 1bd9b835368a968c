import { describe, it } from 'vitest';
import type { KafkaTransactions, KafkaTx } from '../../../../adapters/stores/kafka-transactions/index.ts';
import type { DedupStore, TransactionalStore } from '../../../../src/store.ts';
import { type TransactionalHarness, transactionalStoreContract } from '../../../../src/testing/index.ts';
import { api, faultProxy } from './proxy.ts';
import { clientOf, rig, valuesOf } from './rig.ts';

/** Leases are not what keeps owners apart here, so a claim is no verb of this store. The suite uses it to see what a record has become. */
function looking(store: KafkaTransactions, partition: string): DedupStore & TransactionalStore<KafkaTx> {
  const unit: KafkaTransactions['unit'] = (work) => store.unit(work, partition);
  const refuse = () => Promise.reject(new Error('Not a verb of this store'));
  return {
    unit,
    claim: (asks) =>
      unit(async (open) => {
        const answers = await open.record(asks);
        const taken = asks.filter((_, i) => answers[i]!.state === 'claimed');
        await open.settle(taken.map(({ key, token, retainMs }) => ({ key, token, retainMs, as: 'released', counted: false })));
        return answers;
      }),
    settle: refuse,
    extend: refuse,
    purge: refuse,
  };
}

async function open(): Promise<TransactionalHarness<KafkaTx>> {
  const made = await rig();
  const proxy = await faultProxy();
  const kafka = clientOf(made.brokers, { socketFactory: proxy.socketFactory });
  const { store } = made.worker({ store: { kafka, flushTimeoutMs: 3_000, takeOverTimeoutMs: 3_000 } });
  await store.assign({ topic: made.input, partition: 0 });
  return {
    store: looking(store, `${made.input}/0`),
    elapse: () => {
      throw new Error('The clock of a broker can not be moved');
    },
    write: (tx, text) => tx.publish(made.output, { value: text, partition: 0 }),
    read: async () => valuesOf(await made.read()),
    failCommit(lost) {
      // `silent`: the fence that would settle it does not get through either.
      proxy.strike({ api: api.endTxn, lost: lost === 'reply' ? 'reply' : 'request' });
      if (lost === 'silent') proxy.alsoStrike({ api: api.initProducerId, lost: 'request', times: 1_000 });
    },
  };
}

const noClaims = 'an owner is proven by its epoch, so there are no claims and no leases';
transactionalStoreContract<KafkaTx>({
  describe,
  it,
  name: 'kafkaTransactions',
  open,
  skip: [
    { clause: '20d', reason: 'a dedup log keeps no results; the rest is in once.test.ts' },
    { clause: '20e', reason: noClaims },
    { clause: '20g', reason: noClaims },
    { clause: '20j', reason: noClaims },
    {
      clause: '20i',
      reason: 'the clock of a broker can not be moved; ids.test.ts moves that of the index, and the broker deletes the log',
    },
  ],
});
