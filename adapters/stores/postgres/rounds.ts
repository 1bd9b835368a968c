/**
 * Does a batch in rounds, in which no key occurs twice, so that its items act in their order. Answers in the order asked. Nearly every batch is
 * one round. Within a round items are sorted by key, so that statements that meet take their locks in the same order.
 */
export async function inRounds<In extends { readonly key: string }, Out>(
  items: readonly In[],
  run: (round: readonly In[]) => Promise<readonly Out[]>,
): Promise<Out[]> {
  const rounds: number[][] = [];
  const seen = new Map<string, number>();
  for (const [i, { key }] of items.entries()) {
    const round = seen.get(key) ?? 0;
    seen.set(key, round + 1);
    const members = rounds[round];
    if (members) members.push(i);
    else rounds[round] = [i];
  }
  const answers = new Array<Out>(items.length);
  for (const round of rounds) {
    round.sort((a, b) => (items[a]!.key < items[b]!.key ? -1 : 1));
    const outs = await run(round.map((i) => items[i]!));
    for (const [at, i] of round.entries()) answers[i] = outs[at]!;
  }
  return answers;
}
