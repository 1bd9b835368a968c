// A message that can't succeed is parked with its reason, can be listed, and is tried again when you say so.
import { createReceiver, messageId, TerminalError } from 'idempotent-receiver';
import { memoryStore } from 'idempotent-receiver/memory';

const store = memoryStore();
let open = false;

const receiver = createReceiver({ scope: 'payouts', key: messageId(), store }, (payout: { account: string }) => {
  if (!open) throw new TerminalError(`Account ${payout.account} is closed`);
});

const deliveries = [{ message: { id: 'payout-1', headers: {}, body: '{ "account": "ann" }' } }];
console.log((await receiver.process(deliveries)).map(({ action }) => action));

const parked = await store.listParked({ limit: 10 });
console.log(parked.map(({ label, reason, detail, attempts }) => ({ label, reason, detail, attempts })));

open = true;
for (const { key } of parked) await store.replay(key);
console.log((await receiver.process(deliveries)).map(({ action }) => action));
await receiver.stop();
