import type { Bug } from './bug.ts';
import { coreBugs } from './core.ts';
import { kafkaBugs } from './kafka.ts';
import { kafkaTransactionsBugs } from './kafka-transactions.ts';
import { onceBugs } from './once.ts';
import { sqsBugs } from './sqs.ts';
import { storeBugs } from './stores.ts';

export const allBugs: readonly Bug[] = [...coreBugs, ...onceBugs, ...storeBugs, ...sqsBugs, ...kafkaBugs, ...kafkaTransactionsBugs];
