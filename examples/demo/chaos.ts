import { setTimeout as sleep } from 'node:timers/promises';
import type { Crew } from './crew.ts';
import { gapMs, kills, stoppedMs, stops } from './settings.ts';

/** Most blows fall while a handler takes long; the others anywhere from the receipt of messages on. */
const aims = [
  { told: 'checking', withinMs: 35 },
  { told: 'checking', withinMs: 35 },
  { told: 'delivered', withinMs: 20 },
] as const;

/**
 * The chaos hand: SIGKILLs and SIGSTOPs the workers of a crew all the time.
 *
 * A worker that is stopped inside a SQLite transaction holds the write lock, and all others of its crew wait until it goes on. That
 * is what would happen in production, too. It costs time, and nothing else.
 */
export async function chaos(crew: Crew, signal: AbortSignal): Promise<void> {
  const stalls: Promise<void>[] = [];
  for (const blow of plan()) {
    await pause(gapMs, signal);
    for (let landed = false; !landed; ) {
      const { told, withinMs } = aims[Math.floor(Math.random() * aims.length)]!;
      const worker = await crew.next(told, signal);
      await pause(Math.random() * withinMs, signal);
      if (!worker || signal.aborted) return void (await Promise.all(stalls));
      // Somebody may have died or been stopped in these milliseconds.
      landed = worker.state === 'working';
      if (landed && blow === 'kill') crew.kill(worker);
      else if (landed) stalls.push(crew.stall(worker, stoppedMs.atLeast + Math.random() * (stoppedMs.atMost - stoppedMs.atLeast)));
    }
  }
  // Nobody is left behind stopped.
  await Promise.all(stalls);
}

/** Kills and stops, mixed by chance. */
function plan(): ('kill' | 'stop')[] {
  const blows = Array.from({ length: kills + stops }, (_, i) => ({
    blow: i < kills ? ('kill' as const) : ('stop' as const),
    at: Math.random(),
  }));
  return blows.sort((a, b) => a.at - b.at).map(({ blow }) => blow);
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {});
}
