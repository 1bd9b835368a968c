/** Why a change that survives is let live: by its file, and by what its line contains. The first that fits counts. */
const reasons: readonly (readonly [file: RegExp, change: RegExp, reason: string])[] = [
  [/./, /once: ⟦true|⟦\{ once: true \}/, 'Same: the listener is removed by hand, or its signal is aborted only once.'],
  [/./, /instanceof Promise → true/, 'Same: a value that is no promise has no `catch`, and what that throws is caught.'],
  [/cache/, /⟦young\.size >= options\.size \/ 2 → young\.size >/, 'Same: one entry more or less in a generation.'],
  [
    /canonical/,
    /⟦names\.length > 20|names\.length > 20\) ⟦\{|⟦names\[at - 1\]|⟦at > 0|const plain = ⟦|⟦plain\.test\(text\) → false/,
    'Same result in another time: two ways to sort and to quote, chosen by length.',
  ],
  [/core/, /⟦job\.verdict → false/, 'Second line of defence: each way gives a job one verdict.'],
  [/core/, /⟦job\.source\.settled\?\./, 'Same: that there is none to call is caught as what it throws.'],
  [
    /core/,
    /⟦leader\.action !== 'ack' → false/,
    'Same: a copy behind a failure is `behind` it, and never gets here; its action would stay what it is.',
  ],
  [/core/, /case ⟦'busy'/, 'The type has no such call: busy is answered before.'],
  [/core/, /⟦job\.answer\?\.state/, 'A job whose claim ends has an answer of state `claimed`; the rest is for the compiler.'],
  [/core/, /waitMs <= giveUpAt⟧/, 'Same: a moment of no length.'],
  [/handler/, /finally ⟦/, 'A limit that is left behind aborts a lease that nobody looks at any more.'],
  [/guarded-store/, /⟦'(purge|writeEntries|readEntries|before the receiver had stopped)'/, 'Words for people.'],
  [/guarded-store/, /⟦answers\[i\]\?\.state/, 'Same: answers are as many as asks, and what is thrown here is caught.'],
  [/transactional/, /#recorded/, 'Second line of defence: a store answers `busy` here (contract of `Unit.record`).'],
  [/transactional/, /at <= jobs\.length/, 'Same: a group of no jobs.'],
  [/transactional/, /units\.chained/, 'Same: what is foreseen is used by chained units only.'],
  [
    /transactional/,
    /answer!\.state !== 'claimed'|verdict!\.(action|reason)/,
    'Same: a verdict that needs no claim has none to end, and an ending that comes too late is refused.',
  ],
  [/transactional/, /settings\.on\[name\]/, 'Same: `tell` looks again.'],
  [/receiver/, /!job\.preset → true/, 'Same but for work: a lease that is ended at once.'],
  [/receiver/, /active\.delete|waiting\.abort/, 'Same but for memory and timers of a receiver that has nothing to do.'],
  [
    /once/,
    /has been stopped|\{ retryAfterMs \}|case ⟦'expired'/,
    'Can’t be: a `once` function has no `stop`, and its calls no hold of a broker. Said in words all the same.',
  ],
  [
    /once|effects\/steps/,
    /configurable: ⟦|⟦ˋ?`?\$\{options\.scope\}\(\)/,
    'For people: the name of the function, and of its message in events.',
  ],
  [/lease\.ts/, /timer|at < |at <= /, 'Same but for work: a timer that is set twice wakes twice.'],
  [/lease\.ts/, /kept\.size|source\.hold|claimed → true|this\.lost/, 'Same but for work: nothing is kept, held or lost twice.'],
  [
    /lease\.ts/,
    /⟦askedAt - since < leaseMs → askedAt - since <=|⟦since !== undefined → true|⟦asking\.get\(whom\) === askedAt → true/,
    'Same but at the very moment, or for a call that was taken for lost and comes to its end after all.',
  ],
  [/job/, /Identity/, 'Same: of a message that can’t be read only the verdict is used.'],
  [/key/, /part\.length \* 3/, 'Same result in another time: short texts need not be measured.'],
  [/fingerprint/, /toJSON|first === undefined/, 'Same: what has no such member is given on as it is.'],
  [/schema/, /step !== null/, 'Same: no path of a schema has null in it.'],
  [/events/, /!hook|\? /, 'Same: what calling nothing throws is caught.'],
  [/errors/, /\{ cause \}/, 'For people.'],
  [/leased/, /orphans\.length === 0|asking\.length === 0/, 'Same but for work: nothing is claimed or given back.'],
  [/leased/, /answer\??\.state/, 'Same: an answer that is no claim is no orphan and has no fence.'],
  [/leased/, /reason: 'order'|'order'/, 'A verdict that nobody reads: the claim is given back to be taken again.'],
  [/leased/, /job\.lease!\.over → false/, 'Same but for a round trip: it is looked at again before the handler starts.'],
  [/leased/, /core\.stopping\.aborted|'stopped'/, 'A stop in the very moment between the turn and the start.'],
  [
    /leased/,
    /aborted\?\.code|lease\.signal\.aborted|removeEventListener/,
    'Second line of defence: who is given up has been aborted, and listens once.',
  ],
];

/** @param change the line with the change in it, as `report.ts` writes it */
export function reasonOf(file: string, change: string): string | undefined {
  return reasons.find(([files, changes]) => files.test(file) && changes.test(change))?.[2];
}
