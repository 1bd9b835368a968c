/** What every benchmark answers. */
export interface BenchResult {
  readonly cases: readonly CaseResult[];
  readonly aims: readonly Aim[];
}

export interface CaseResult {
  readonly name: string;
  readonly messages: number;
  readonly perSecond: number;
}

/** A figure that is promised, and what was measured: of a comparison, the messages a second of both too. */
export type Aim = { readonly name: string; readonly measured: number; readonly perSecond?: number; readonly against?: number } & (
  | { readonly atLeast: number }
  | { readonly atMost: number }
);

export type Bench = (options: { readonly seconds: number }) => Promise<BenchResult>;

/** One way to do the work: `run` handles one batch, and answers how many messages that were; `close` throws the place away. */
export interface Contender {
  readonly name: string;
  run(batch: number): Promise<number | Stretch>;
  close(): void;
}

/** Messages, and how long they took where the call has taken longer. */
export interface Stretch {
  readonly messages: number;
  readonly ms: number;
}

/**
 * Measures contenders side by side in one run: they take turns in short rounds, so that whatever else the machine does meets all
 * of them alike. The first round of each warms up and does not count; of the others the median does.
 */
export async function sideBySide(
  contenders: readonly Contender[],
  options: { readonly seconds: number; readonly rounds?: number },
): Promise<CaseResult[]> {
  const rounds = options.rounds ?? 6;
  const roundMs = (options.seconds * 1_000) / rounds;
  const counted = contenders.map((): Stretch[] => []);
  let batch = 0;
  for (let round = 0; round <= rounds; round++) {
    // Every other round in the opposite order: nobody always runs on the heels of the same other.
    const order = [...contenders.keys()];
    if (round % 2) order.reverse();
    for (const i of order) {
      const startedAt = performance.now();
      let [messages, ms] = [0, 0];
      do {
        const callAt = performance.now();
        const answer = await contenders[i]!.run(batch++);
        messages += typeof answer === 'number' ? answer : answer.messages;
        ms += typeof answer === 'number' ? performance.now() - callAt : answer.ms;
      } while (performance.now() - startedAt < roundMs);
      if (round > 0) counted[i]!.push({ messages, ms });
    }
  }
  for (const contender of contenders) contender.close();
  return contenders.map(({ name }, i) => {
    const messages = counted[i]!.reduce((sum, round) => sum + round.messages, 0);
    return { name, messages, perSecond: Math.round(median(counted[i]!.map((round) => (round.messages / round.ms) * 1_000))) };
  });
}

/** Compares two cases by their names. */
export function comparing(
  cases: readonly CaseResult[],
): (name: string, to: string) => { measured: number; perSecond: number; against: number } {
  const rateOf = (wanted: string) => cases.find(({ name }) => name === wanted)!.perSecond;
  return (name, to) => {
    const [perSecond, against] = [rateOf(name), rateOf(to)];
    return { measured: Number((perSecond / against).toFixed(3)), perSecond, against };
  };
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
