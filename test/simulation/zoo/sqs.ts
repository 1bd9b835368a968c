import { type Bug, leased } from './bug.ts';

const folder = 'adapters/brokers/sqs';

/** Bugs of what stands between the receiver and a queue. */
export const sqsBugs: readonly Bug[] = [
  {
    name: 'deletes a message that did not arrive in the dead-letter queue',
    wild: 'error channels that drop: NServiceBus, Sidekiq plug-ins (A 7.20)',
    look: leased,
    patches: [
      {
        file: `${folder}/settle.ts`,
        from: 'if (sendAway && (await sendAway(delivery, verdict))) await',
        to: 'if (sendAway && [await sendAway(delivery, verdict)]) await',
      },
    ],
  },
  {
    name: 'takes the time of receiving for the time of sending',
    wild: 'consumers that stamp messages as they come, so that none is ever old (W23)',
    look: leased,
    patches: [{ file: `${folder}/delivery.ts`, from: "sentAtMs: wholeNumber(system['SentTimestamp']),", to: 'sentAtMs: undefined,' }],
  },
  {
    name: 'deletes what has to be tried again',
    wild: 'sqs-consumer alwaysAcknowledge, strictReturn (S 2.1)',
    look: leased,
    patches: [
      {
        file: `${folder}/settle.ts`,
        from: "if (verdict.action === 'ack') acked.push(delivery);",
        to: "if (verdict.action !== 'dead-letter') acked.push(delivery);",
      },
    ],
  },
  {
    name: 'deletes the whole batch as soon as one message of it is done',
    wild: 'Lambda without ReportBatchItemFailures (S 1.4)',
    look: leased,
    patches: [
      {
        file: `${folder}/settle.ts`,
        from: 'else hidden.push({ delivery, forMs: verdict.afterMs });',
        to: 'else if (acked.length > 0) acked.push(delivery);\n      $&',
      },
      {
        file: `${folder}/handle.ts`,
        from: '(decisions) => void answer(decisions)',
        to: "(decisions) => void answer(decisions.some(({ verdict }) => verdict.action === 'ack') ? deliveries.map((delivery) => ({ delivery, verdict: { action: 'ack', outcome: 'completed' } as const })) : decisions)",
      },
    ],
  },
  {
    name: 'ignores that its hold on the delivery is lost',
    wild: 'sqs-consumer: a failed heartbeat is only logged (S 1.5 row 4)',
    look: [
      ['leased', 'fifo'],
      ['leased', 'standard'],
    ],
    patches: [
      { file: 'src/lease.ts', from: 'else if (held[i] === false)', to: 'else if (held[i] === null as never)' },
      { file: `${folder}/delivery.ts`, from: 'heldUntil: handedOutAt + visibilityMs,', to: '' },
      { file: 'src/leased.ts', from: "if (lease.over) return await unstarted(job, 'expired');", to: '' },
    ],
  },
  {
    name: 'orders nothing: the messages of a FIFO group run at the same time',
    wild: 'pools over a FIFO queue (S 1.2)',
    look: [['leased', 'fifo']],
    patches: [{ file: `${folder}/delivery.ts`, from: "orderingKey: fifo ? system['MessageGroupId'] : undefined,", to: '' }],
  },
  {
    name: 'does not look whether the queue has taken its deletes',
    wild: 'sqs-consumer #315; tomodachi #2074 (S 1.6)',
    look: leased,
    patches: [{ file: `${folder}/settle.ts`, from: 'if (acked.length > 0) tasks.push(remove(acked));', to: '' }],
  },
];
