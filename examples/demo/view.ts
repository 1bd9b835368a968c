import type { Counts, State } from './crew.ts';
import { columns, paint, type Row, table } from './report.ts';

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
export interface Screen {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Shows scenes until it is stopped: in a terminal in place, elsewhere as a plain line every few seconds. */
export function startView(screen: Screen, colour: boolean, look: () => Scene): { stop(): void } {
  // Lines that the terminal breaks could not be drawn over.
  const live = screen.isTTY && (screen.columns ?? 80) >= 64;
  const show = live ? inPlace(screen, colour) : asLines(screen);
  const timer = setInterval(() => show.draw(look()), live ? 200 : 3_000);
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

function inPlace(screen: Screen, colour: boolean): Show {
  let height = 0;
  // The cursor would flicker across the table.
  screen.write('\x1b[?25l');
  const erase = () => (height > 0 ? `\x1b[${height}A\x1b[J` : '');
  return {
    draw(scene) {
      const lines = sceneLines(scene, colour);
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

const faces: Record<State, { readonly face: string; readonly code: number }> = {
  working: { face: '●', code: 32 },
  starting: { face: '○', code: 33 },
  stopped: { face: '‖', code: 34 },
  dead: { face: '✗', code: 31 },
};

/** The lines of the live view. */
export function sceneLines({ seconds, phase, sent, naive, receiver }: Scene, colour: boolean): string[] {
  const face = (state: State) => paint(faces[state].face, faces[state].code, colour);
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
  const workers = ({ states }: Glance) => `${' '.repeat(columns.figure - 2 * states.length + 1)}${states.map(face).join(' ')}`;
  return [
    '',
    `  ${seconds.toFixed(1).padStart(5)} s  ${phase}`,
    '',
    ...table(rows, colour),
    `  ${'workers'.padEnd(columns.label)}${workers(naive)}${workers(receiver)}`,
    '',
    `  ${face('working')} works  ${face('starting')} starts  ${face('stopped')} is stopped  ${face('dead')} was killed`,
  ];
}
