import type { Counts, State } from './crew.ts';
import { type Row, table } from './report.ts';

/** What the view shows of one side while the demo runs. */
export interface Glance extends Counts {
  readonly effects: number;
  readonly duplicated: number;
  readonly inQueues: number;
  readonly states: readonly State[];
}

/** Both sides and what goes on. */
export interface Scene {
  readonly seconds: number;
  readonly phase: string;
  readonly sent: number;
  readonly naive: Glance;
  readonly receiver: Glance;
}

/** Where the view is shown. */
export type Screen = Pick<NodeJS.WriteStream, 'write'> & { readonly isTTY?: boolean };

/** Shows scenes until it is stopped: in a terminal in place, elsewhere as a plain line every few seconds. */
export function startView(screen: Screen, look: () => Scene): { stop(): void } {
  const show = screen.isTTY ? inPlace(screen) : asLines(screen);
  const timer = setInterval(() => show.draw(look()), screen.isTTY ? 200 : 3_000);
  show.draw(look());
  return {
    stop() {
      clearInterval(timer);
      show.end();
    },
  };
}

interface Show {
  draw(scene: Scene): void;
  end(): void;
}

function inPlace(screen: Screen): Show {
  let height = 0;
  // The cursor would flicker across the table.
  screen.write('\x1b[?25l');
  const erase = () => (height > 0 ? `\x1b[${height}A\x1b[J` : '');
  return {
    draw(scene) {
      const lines = sceneLines(scene);
      screen.write(`${erase()}${lines.join('\n')}\n`);
      height = lines.length;
    },
    // The table of the end takes the place of this one.
    end: () => void screen.write(`${erase()}\x1b[?25h`),
  };
}

function asLines(screen: Screen): Show {
  const side = (sent: number, { delivered, effects, duplicate, duplicated, kills, stops }: Glance) =>
    `${delivered} delivered, ${effects} charged of ${sent}, ${duplicated} twice, ${duplicate} duplicates stopped, ${kills} kills, ${stops} stops`;
  return {
    draw({ seconds, phase, sent, naive, receiver }) {
      const time = `${seconds.toFixed(1)} s`.padStart(7);
      screen.write(`${time}  ${phase}\n         naive     ${side(sent, naive)}\n         receiver  ${side(sent, receiver)}\n`);
    },
    end() {},
  };
}

const faces: Record<State, string> = { starting: '\x1b[33m○\x1b[0m', working: '\x1b[32m●\x1b[0m', stopped: '\x1b[34m‖\x1b[0m', dead: '\x1b[31m✗\x1b[0m' };

/** The lines of the live view. */
export function sceneLines({ seconds, phase, sent, naive, receiver }: Scene): string[] {
  const row = (label: string, of: (side: Glance) => number, bad?: boolean): Row => ({
    label,
    naive: of(naive),
    receiver: of(receiver),
    ...(bad && { bad }),
  });
  const rows = [
    row('orders sent', () => sent),
    row('deliveries to workers', ({ delivered }) => delivered),
    row('duplicates stopped', ({ duplicate }) => duplicate),
    row('workers killed', ({ kills }) => kills),
    row('workers stopped past the lease', ({ stops }) => stops),
    row('messages in the queues', ({ inQueues }) => inQueues),
    row('charges in the ledger', ({ effects }) => effects),
    row('orders not charged (yet)', ({ effects, duplicated }) => sent - (effects - duplicated)),
    row('charges too many', ({ duplicated }) => duplicated, true),
  ];
  const workers = ({ states }: Glance) => `${' '.repeat(15 - 2 * states.length)}${states.map((state) => faces[state]).join(' ')}`;
  return [
    '',
    `  ${seconds.toFixed(1).padStart(5)} s  ${phase}`,
    '',
    ...table(rows, true),
    `  ${'workers'.padEnd(32)}${workers(naive)}${workers(receiver).slice(1)}`,
    '',
    `  ${faces.working} works  ${faces.starting} starts  ${faces.stopped} is stopped  ${faces.dead} was killed`,
  ];
}
