import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/services/host.ts'],
    testTimeout: 30_000,
    hookTimeout: 120_000,
  },
});
