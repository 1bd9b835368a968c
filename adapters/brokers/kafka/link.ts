import type { World } from '../../../src/clock.ts';

/** What the adapter was doing when something went wrong. */
export type KafkaActivity = 'settings' | 'membership' | 'assign' | 'commit' | 'dead-letter' | 'order' | 'process' | 'progress';

/** Tells the user; never throws. */
export type Report = (error: unknown, during: KafkaActivity) => void;

/** Delay before the next try: 0.1 s, doubled by each failure in a row up to `maxMs`, less up to a half by chance. */
export function backoffMs(failures: number, maxMs: number, world: World): number {
  return Math.min(maxMs, 100 * 2 ** Math.min(failures, 20)) * (1 - world.random.number() / 2);
}
