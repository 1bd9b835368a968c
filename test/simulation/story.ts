import type { Report, RunOptions } from './simulate.ts';

const longest = 250;

/** A failing run as people read it: what went wrong, what it takes, and what happened, line by line. */
export function storyOf({ seed, way, broker }: RunOptions, report: Report, commit: string): string {
  const { scenario, violations, faults, story } = report;
  const settings = [
    'leaseMs',
    'visibilityMs',
    'storeTimeoutMs',
    'handlerTimeoutMs',
    'waitMs',
    'maxAttempts',
    'concurrency',
    'maxInFlight',
  ] as const;
  const lines = story.map(
    ({ at, who, text, fault }) => `${(at / 1_000).toFixed(3).padStart(10)} ${fault ? '!!' : '  '} ${who.padEnd(8)} ${text}`,
  );
  const last = story.findIndex(({ who }) => who === 'CHECK');
  const shown = lines.slice(0, last < 0 ? lines.length : last + 1);
  return [
    `VIOLATION, seed ${seed}, ${way} × ${broker}, commit ${commit}`,
    ...violations.slice(0, 5).map(({ invariant, what, at }) => `  ${invariant} at ${(at / 1_000).toFixed(3)} s: ${what}`),
    `  again: npm run simulate -- --seed ${seed} --way ${way} --broker ${broker}`,
    `  settings: ${settings.map((name) => `${name} ${scenario[name]}`).join(', ')}${way === 'transactional' ? `, ${scenario.isolation}` : ''}`,
    `  what it takes: ${faults.map(({ id }) => id).join('; ')}`,
    'The story (!! is a fault):',
    ...(shown.length > longest ? [`      … ${shown.length - longest} lines`, ...shown.slice(-longest)] : shown),
  ].join('\n');
}
