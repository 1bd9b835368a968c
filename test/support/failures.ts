/**
 * What becomes of a message whose worker dies at each border. kill.test.ts does it to real processes, and the README's table is made of the same
 * rows (`npm run tables`), so it says what the tests have shown.
 */
export interface Death {
  readonly guarantee: 'transactional' | 'leased';
  /** Where it dies: a border of victim.ts, and how people call it. */
  readonly border: string;
  readonly when: string;
  /** What then happens, and what the last delivery comes to. */
  readonly comes: string;
  readonly outcome: 'completed' | 'duplicate';
  readonly effects: 1 | 2;
}

const again = { comes: 'handled when it comes again', outcome: 'completed', effects: 1 } as const;
const afterLease = { comes: 'handled when its lease has ended', outcome: 'completed', effects: 1 } as const;
const rolledBack = { comes: 'rolled back, handled when it comes again', outcome: 'completed', effects: 1 } as const;
const copyAcked = { comes: 'the copy is acked', outcome: 'duplicate', effects: 1 } as const;
// The one gap that no lease can close: the effect has happened, the record has not.
const twice = { comes: 'the effect happens twice', outcome: 'completed', effects: 2 } as const;

export const deaths: readonly Death[] = [
  { guarantee: 'leased', border: 'before claim', when: 'before the claim', ...again },
  { guarantee: 'leased', border: 'after claim', when: 'after the claim', ...afterLease },
  { guarantee: 'leased', border: 'before effect', when: 'in the handler, before the effect', ...afterLease },
  { guarantee: 'leased', border: 'after effect', when: 'between effect and record', ...twice },
  { guarantee: 'leased', border: 'after record', when: 'after the record', ...copyAcked },
  { guarantee: 'leased', border: 'before ack', when: 'before the ack', ...copyAcked },
  { guarantee: 'transactional', border: 'before effect', when: 'in the handler, before the effect', ...again },
  { guarantee: 'transactional', border: 'after effect', when: 'after the effect', ...rolledBack },
  { guarantee: 'transactional', border: 'before commit', when: 'before the commit', ...rolledBack },
  { guarantee: 'transactional', border: 'after record', when: 'after the commit', ...copyAcked },
  { guarantee: 'transactional', border: 'before ack', when: 'before the ack', ...copyAcked },
];

export const titleOf = ({ guarantee, when, comes }: Death): string => `${guarantee}, killed ${when}: ${comes}`;

/** The README's rows: where it dies, and which death shows it, by guarantee. */
const rows: readonly { readonly dies: string; readonly transactional?: string; readonly leased: string }[] = [
  { dies: 'before the claim', leased: 'before claim' },
  { dies: 'after the claim, before the handler', leased: 'after claim' },
  { dies: 'in the handler, before the effect', transactional: 'before effect', leased: 'before effect' },
  { dies: '**between effect and record**', transactional: 'before commit', leased: 'after effect' },
  { dies: 'after the record', transactional: 'after record', leased: 'after record' },
  { dies: 'before the ack', transactional: 'before ack', leased: 'before ack' },
];

/** The README's table of what happens if the process dies, but for its head. */
export function failureRows(): string {
  const find = (guarantee: Death['guarantee'], border: string) =>
    deaths.find((each) => each.guarantee === guarantee && each.border === border)!;
  return rows
    .map(({ dies, ...borders }) => {
      const leased = find('leased', borders.leased);
      const transactional = borders.transactional === undefined ? undefined : find('transactional', borders.transactional);
      const proofs = [transactional, leased].filter((each) => each !== undefined).map((each) => `"${titleOf(each)}"`);
      const cells = [
        dies,
        transactional ? cellOf(transactional) : 'there is no claim',
        cellOf(leased),
        `\`test/kill.test.ts\`: ${proofs.join(', ')}`,
      ];
      return `| ${cells.join(' | ')} |`;
    })
    .join('\n');
}

const cellOf = ({ comes, effects }: Death): string => (effects === 2 ? `**${comes}**` : `${comes}: one effect`);
