import { setTimeout as sleep } from 'node:timers/promises';
import type { Crew } from './crew.ts';
import { gapMs, kills, stoppedMs, stops } from './settings.ts';

/** A blow falls while a handler takes long, or somewhere behind the receipt of messages: that many milliseconds after the worker told so. */
const moments = { checking: 35, delivered: 20 };

/** Kills mostly fall into handlers. Of stops only half do, because each of those makes the whole crew wait. */
const aims = {
  kill: ['checking', 'checking', 'checking', 'delivered'],
  stop: ['checking', 'delivered'],
} as const;

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
      const moment = oneOf(aims[blow]);
      const worker = await crew.next(moment, signal);
      await pause(Math.random() * moments[moment], signal);
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
function plan(): (keyof typeof aims)[] {
  const blows = Array.from({ length: kills + stops }, (_, i) => ({
    blow: i < kills ? ('kill' as const) : ('stop' as const),
    at: Math.random(),
  }));
  return blows.sort((a, b) => a.at - b.at).map(({ blow }) => blow);
}

function oneOf<T>(choices: readonly T[]): T {
  return choices[Math.floor(Math.random() * choices.length)]!;
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {});
}
