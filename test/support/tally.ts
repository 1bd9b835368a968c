import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Reporter, TestCase, TestModule } from 'vitest/node';

/**
 * Writes what `.ci/run` ends with: each skipped test with its reason, each that passed only when it was tried
 * again, then one line of counts. A file that can't be loaded and an error
 * outside of any test count as failed, so that a failed run never says "0 failed". A skip without a reason fails the run.
 */
export function tally(path: string): Reporter {
  return {
    onTestRunEnd(modules, errors) {
      const tests = modules.flatMap((module) => [...module.children.allTests()]);
      const inState = (state: string) => tests.filter((test) => test.result().state === state);
      const skipped = inState('skipped');
      const failed = inState('failed').length + modules.filter(isBroken).length + errors.length;
      const lines = skipped.map(
        (test) => `skipped: ${test.module.relativeModuleId} > ${test.fullName}${reasonOf(test) ?? ': NO REASON GIVEN'}`,
      );
      // Races with real servers on a busy machine: told, so that nobody takes them for sound.
      const flaky = tests.filter((test) => test.diagnostic()?.flaky);
      lines.push(...flaky.map((test) => `passed only when tried again: ${test.module.relativeModuleId} > ${test.fullName}`));
      if (skipped.some((test) => reasonOf(test) === undefined)) process.exitCode = 1;
      lines.push(`${inState('passed').length} passed, ${failed} failed, ${skipped.length} skipped`);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, lines.map((line) => `${line}\n`).join(''));
    },
  };
}

/** Failed as a file, though none of its tests has failed: it could not be loaded, or a hook threw. */
function isBroken(module: TestModule): boolean {
  return module.state() === 'failed' && ![...module.children.allTests('failed')].length;
}

/** What was given to `context.skip(reason)`, as a suffix; empty if the title itself ends with a reason, as those of contract suites do. */
function reasonOf(test: TestCase): string | undefined {
  const result = test.result();
  if (/\(skipped: .+\)$/.test(test.name)) return '';
  return result.state === 'skipped' && result.note ? `: ${result.note}` : undefined;
}
