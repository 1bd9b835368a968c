import { describe, it } from 'vitest';
import { allBugs } from './all.ts';
import { fits } from './grow.ts';

/** `npm run zoo` hunts them. Here only: where the code has changed, its bugs have to move with it. */
describe('each bug of the zoo still has its place in the code', () => {
  it.each(allBugs.map((bug) => [bug.name, bug] as const))('%s', (_, bug) => fits(bug));
});
