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

/** A figure that is promised, and what was measured. */
export type Aim = { readonly name: string; readonly measured: number } & ({ readonly atLeast: number } | { readonly atMost: number });

export type Bench = (options: { readonly seconds: number }) => Promise<BenchResult>;

/** One way to do the work: `run` handles one batch; `close` throws the place away. */
export interface Contender {
  readonly name: string;
  run(batch: number): Promise<number>;
  close(): void;
}

/**
 * Measures contenders side by side in one run: they take turns in short rounds, so that whatever else the machine does meets all
 * of them alike. The first round of each warms up and does not count.
 */
export async function sideBySide(
  contenders: readonly Contender[],
  options: { readonly seconds: number; readonly rounds?: number },
): Promise<CaseResult[]> {
  const rounds = options.rounds ?? 6;
  const roundMs = (options.seconds * 1_000) / rounds;
  const sums = contenders.map(() => ({ messages: 0, ms: 0, batch: 0 }));
  for (let round = 0; round <= rounds; round++) {
    // Every other round in the opposite order: nobody always runs on the heels of the same other.
    const order = [...contenders.keys()];
    if (round % 2) order.reverse();
    for (const i of order) {
      const sum = sums[i]!;
      const startedAt = performance.now();
      let messages = 0;
      do messages += await contenders[i]!.run(sum.batch++);
      while (performance.now() - startedAt < roundMs);
      if (round === 0) continue;
      sum.messages += messages;
      sum.ms += performance.now() - startedAt;
    }
  }
  for (const contender of contenders) contender.close();
  return contenders.map(({ name }, i) => {
    const { messages, ms } = sums[i]!;
    return { name, messages, perSecond: Math.round((messages / ms) * 1_000) };
  });
}
