import { type Report, type RunOptions, simulate } from './simulate.ts';

/** Runs that may be spent on making one story shorter. */
const budget = 1_500;

/**
 * Takes faults, messages and workers away from a failing run for as long as it still fails in the same way (delta debugging, Zeller 1999), and runs
 * what is left once more, telling its story.
 */
export async function minimise(options: RunOptions, failing: Report): Promise<Report> {
  const { invariant } = failing.violations[0]!;
  let spent = 0;
  let kept = failing.faults.map(({ id }) => id);

  async function fails(ids: readonly string[]): Promise<boolean> {
    spent++;
    const { violations } = await simulate({ ...options, only: new Set(ids), telling: false });
    return violations.some((violation) => violation.invariant === invariant);
  }

  // In a replay only what is named happens. If the run depends on more than that it is told as it was.
  if (!(await fails(kept))) return simulate({ ...options, telling: true });
  for (let parts = 2; kept.length > 1 && spent < budget; ) {
    const size = Math.ceil(kept.length / parts);
    let smaller: string[] | undefined;
    for (let at = 0; at < kept.length && spent < budget; at += size) {
      const without = [...kept.slice(0, at), ...kept.slice(at + size)];
      if (without.length > 0 && (await fails(without))) {
        smaller = without;
        break;
      }
    }
    if (smaller) {
      kept = smaller;
      parts = Math.max(2, parts - 1);
    } else if (size === 1) break;
    else parts = Math.min(kept.length, parts * 2);
  }
  return simulate({ ...options, only: new Set(kept), telling: true });
}
