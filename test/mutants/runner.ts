import { strykerPlugins as plugins } from '@stryker-mutator/vitest-runner';

/**
 * Stryker's own runner for Vitest, made to work with Vitest 5, which puts ` > ` between the names of suites and tests where the versions
 * before put a space. Without it no test of a mutant is found, and every mutant survives.
 */
const [plugin] = plugins;

interface Runner {
  ctx: { projects: { config: { testNamePattern?: RegExp | undefined } }[] };
  init(): Promise<void>;
}

function factory(injector: never): Runner {
  const runner = (plugin!.factory as unknown as (injector: never) => Runner)(injector);
  const init = runner.init.bind(runner);
  runner.init = async () => {
    await init();
    for (const { config } of runner.ctx.projects) {
      let pattern: RegExp | undefined;
      Object.defineProperty(config, 'testNamePattern', {
        enumerable: true,
        get: () => pattern,
        set: (given: RegExp | undefined) => {
          pattern = given && new RegExp(given.source.replaceAll(' ', '(?: > | )'));
        },
      });
    }
  };
  return runner;
}
factory.inject = (plugin!.factory as { inject?: unknown }).inject;

export const strykerPlugins: readonly unknown[] = [{ ...plugin, name: 'vitest-5', factory }];
