import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { platform } from 'node:os';

interface Process {
  readonly pid: number;
  readonly parent: number;
}

/** A process and all that it has started: Postgres has one for each connection. */
export class Family {
  readonly #pid: number;

  constructor(pid: number) {
    this.#pid = pid;
  }

  /** Stops all of them in the middle of whatever they do. The parent is first, so that none is started meanwhile. */
  pause(): void {
    this.#stopped();
  }

  resume(): void {
    for (const pid of this.#members(running())) send(pid, 'SIGCONT');
  }

  /** Ends all of them at once: none carries on, not even with what a paused one has been sent. Returns who has to be gone. */
  kill(): number[] {
    const all = this.#stopped();
    for (const pid of all) send(pid, 'SIGKILL');
    return all;
  }

  #stopped(): number[] {
    const stopped = new Set<number>();
    for (;;) {
      const more = this.#members(running()).filter((pid) => !stopped.has(pid));
      if (more.length === 0) return [...stopped];
      for (const pid of more) {
        send(pid, 'SIGSTOP');
        stopped.add(pid);
      }
    }
  }

  #members(all: readonly Process[]): number[] {
    const members = all.some(({ pid }) => pid === this.#pid) ? [this.#pid] : [];
    for (const member of members) for (const { pid, parent } of all) if (parent === member) members.push(pid);
    return members;
  }
}

/** Resolves when none of these runs any more. */
export async function allGone(pids: readonly number[]): Promise<void> {
  while (running().some(({ pid }) => pids.includes(pid))) await new Promise((resolve) => setTimeout(resolve, 5));
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has just ended.
  }
}

/** All that run now. The dead whom nobody has buried yet (zombies) don't. */
function running(): Process[] {
  return (platform() === 'linux' ? ofProc() : ofPs()).filter(({ state }) => !state.startsWith('Z'));
}

/** Not by `ps`, which small Linux images don't have. */
function ofProc(): (Process & { state: string })[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      // `pid (name) state parent …`, where the name may be anything.
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return [{ pid: Number(name), parent: Number(parent), state: state! }];
    } catch {
      return [];
    }
  });
}

function ofPs(): (Process & { state: string })[] {
  const lines = execFileSync('ps', ['-A', '-o', 'pid=', '-o', 'ppid=', '-o', 'stat='], { encoding: 'utf8' }).trim().split('\n');
  return lines.map((line) => {
    const [pid, parent, state] = line.trim().split(/\s+/);
    return { pid: Number(pid), parent: Number(parent), state: state! };
  });
}
