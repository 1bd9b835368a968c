import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

/** The tests of src/ that need neither a service nor a second process, nor seconds: what mutants of src/ are run against. */
export default defineConfig({
  test: {
    root: fileURLToPath(new URL('../..', import.meta.url)),
    include: ['test/*.test.ts', 'test/effects/*.test.ts'],
    exclude: [
      'test/{demo,examples,kill,package,readme}.test.ts',
      'test/effects/{*-dynamodb,*-postgres,*-redis,kill,kill-servers,outbox-chain,outbox-kafka,outbox-kill,outbox-sqs,property,steps-faults}.test.ts',
    ],
  },
});
