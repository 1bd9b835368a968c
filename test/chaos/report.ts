import type { Aim } from './cell.ts';
import type { Found } from './run.ts';

/** Why a run does not count, or shows a promise broken. Empty if all is as promised. */
export function complaints(found: Found, aim: Aim): string[] {
  const { cell, lost, doubled, wrong, disordered, left, parked, accidents } = found;
  const said: string[] = accidents.slice(0, 3).map((each) => `one of ${accidents.length} accidents: ${each}`);
  const isNaive = cell.mode === 'naive';
  const least = { ...aim, storeFaults: isNaive ? 0 : aim.storeFaults };
  for (const what of ['messages', 'kills', 'stops', 'storeFaults', 'brokerFaults'] as const)
    if (found[what] < least[what]) said.push(`not exercised: ${found[what]} ${what}, and ${least[what]} have to be`);
  if (isNaive) {
    if (lost.length === 0) said.push('not exercised: the naive consumer lost nothing, so the harness is blind to losses, or was too kind');
    if (doubled.length === 0)
      said.push('not exercised: the naive consumer doubled nothing, so the harness is blind to doubles, or was too kind');
    return said;
  }
  // A Kafka consumer that stood still has lost its partition and knows it, so that hardly any of its writes come late.
  if (cell.mode === 'fenced' && cell.broker !== 'kafka' && aim.stops >= 60 && found.refused === 0)
    said.push('not exercised: no stale write came to the ledger');
  if (!found.told['duplicate']) said.push('not exercised: nothing came twice');
  if (lost.length > 0) said.push(`${lost.length} lost: ${some(lost)}`);
  if (wrong.length > 0) said.push(`${wrong.length} doubled that must not be: ${some(wrong)}`);
  if (disordered.length > 0) said.push(`${disordered.length} out of their key's order: ${some(disordered)}`);
  if (parked.length > 0) said.push(`${parked.length} parked that nothing is wrong with: ${some(parked)}`);
  if (left > 0) said.push(`${left} not acked in the end`);
  return said;
}

/** Of a complaint: not that something was wrong, but that too little has happened to tell. */
export const isTooLittle = (complaint: string): boolean => complaint.startsWith('not exercised');

const some = (all: readonly string[]) => all.slice(0, 5).join(', ') + (all.length > 5 ? ', …' : '');

/** One line. */
export function detailsOf(found: Found): string {
  const { seconds, messages, copies, kills, stops, storeFaults, brokerFaults, lost, doubled, explained, refused, told } = found;
  const why = Object.entries(explained).map(([reason, count]) => `${count} ${reason}`);
  return [
    `${messages} messages and ${copies} copies in ${seconds} s`,
    `${kills} kills, ${stops} stops, ${storeFaults} store faults, ${brokerFaults} broker faults, ${told['thrown'] ?? 0} throws`,
    `${told['duplicate'] ?? 0} duplicates dropped, ${told['busy'] ?? 0} busy, ${told['storeDown'] ?? 0} times store down`,
    `${lost.length} lost, ${doubled.length} doubled${why.length > 0 ? ` (${why.join(', ')})` : ''}`,
    ...(found.cell.mode === 'fenced' ? [`${refused} refused by the ledger`] : []),
  ].join('; ');
}
