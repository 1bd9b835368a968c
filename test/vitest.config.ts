import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { tally } from './support/tally.ts';

const tallyPath = process.env['TEST_TALLY'];

/**
 * Tests import from src/ and adapters/ by path, and need no build. Only package.test.ts and readme.test.ts test what is published: they
 * pack it in a folder of their own (support/package.ts), so they don't need dist/ either, and disturb nobody who uses it.
 */
export default defineConfig({
  test: {
    root: fileURLToPath(new URL('..', import.meta.url)),
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/services/host.ts'],
    testTimeout: 30_000,
    hookTimeout: 120_000,
    // In CI only, once, and each is told at the end: see tally.ts.
    retry: tallyPath ? 1 : 0,
    reporters: tallyPath ? ['default', tally(tallyPath)] : ['default'],
  },
});
