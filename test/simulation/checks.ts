import type { Verdict } from '../../src/index.ts';
import { keyOf } from '../../src/key.ts';
import type { Kernel } from '../../src/testing/virtual/kernel.ts';
import type { SimBroker, Whereabouts } from './broker.ts';
import type { Chance } from './chance.ts';
import type { Effect, Ledger, Run } from './ledger.ts';
import type { Scenario } from './scenario.ts';
import type { Seen, SimStore } from './stores.ts';
import { scope } from './subject.ts';
import type { Watch } from './watch.ts';
import type { Worker } from './worker.ts';

/** So long after its keys were recorded a handler of a unit starts, if nothing goes wrong. */
const unitWaitMs = 1_000;

interface Everything {
  readonly kernel: Kernel;
  readonly chance: Chance;
  readonly scenario: Scenario;
  readonly store: SimStore;
  readonly broker: SimBroker;
  readonly ledger: Ledger;
  readonly watch: Watch;
}

/** The invariants of DESIGN.md 5, checked while a run goes on and after it. Reads what really is, behind everybody's back. */
export class Checks {
  readonly #of: Everything;
  readonly #digests = new Map<string, string>();
  readonly #names = new Map<string, string>();

  constructor(of: Pick<Everything, 'kernel' | 'chance' | 'scenario' | 'watch'>) {
    this.#of = of as Everything;
    for (const { key } of of.scenario.messages) {
      if (this.#digests.has(key)) continue;
      const digest = keyOf(scope, key);
      this.#digests.set(key, digest);
      this.#names.set(digest, key);
    }
  }

  readonly nameOf = (digest: string): string => this.#names.get(digest) ?? digest;

  /** The parts are made one after another, and some want this one first. */
  connect(parts: Pick<Everything, 'store' | 'broker' | 'ledger'>): void {
    Object.assign(this.#of, parts);
    // Named first: V8 puts a function that is written where it is assigned to a property into its old generation, and with it everything that it
    // knows, here the whole run. Runs are to be forgotten at once: half of their time would go into collecting them.
    const onAck = (message: Whereabouts) => this.acked(message, 'deleted');
    const onEffects = (effects: readonly Effect[]) => this.effects(effects);
    const onBegin = (run: Run) => this.begun(run);
    parts.broker.onAck = onAck;
    parts.ledger.onEffects = onEffects;
    parts.ledger.onBegin = onBegin;
    parts.store.onLapse((digest, lease) => this.lapsed(this.nameOf(digest), lease));
  }

  seen(key: string): Seen | undefined {
    return this.#of.store.seen(this.#digests.get(key)!);
  }

  /**
   * When a store of relaxed durability lost what it knew of a key. What is left of its promises then: acked means an effect, unless the two are
   * one transaction and went together; a resource that checks fences has one effect; no message stays without an end.
   */
  #lostAt(key: string): readonly number[] | undefined {
    return this.#of.store.lost.get(this.#digests.get(key)!);
  }

  /** I2: acked only when effect and record are there. */
  acked({ sent }: Whereabouts, how: string): void {
    const { watch, ledger, scenario } = this.#of;
    const isLost = this.#lostAt(sent.key) !== undefined;
    // Where records are forgotten, another message may have taken the key by now.
    if (this.seen(sent.key)?.state !== 'completed' && this.#remembers && !isLost)
      watch.violation('I2', `${sent.name} was ${how}, but its record is ${this.seen(sent.key)?.state}`);
    const effects = ledger.of(sent.key);
    // In a transaction the effect goes where the record goes.
    if (isLost && scenario.way === 'transactional') return;
    if (effects.length === 0) watch.violation('I2', `${sent.name} was ${how} without an effect`);
    // The resource of the fenced way remembers a key for longer than the store.
    else if (this.#remembers && !isLost && effects.every(({ run }) => run.payload !== sent.payload))
      watch.violation('I7', `${sent.name} was ${how} for the effect of another payload`);
  }

  verdict(worker: Worker, messageId: string, verdict: Verdict): void {
    const { watch, broker, scenario } = this.#of;
    const message = broker.find(messageId);
    const { sent } = message;
    watch.tell(worker.name, () => `${sent.name}: ${verdict.action} ${verdict.action === 'ack' ? verdict.outcome : verdict.reason}`);
    if (verdict.action === 'ack') {
      this.acked(message, `acked by ${worker.name}`);
      if (scenario.results && this.#remembers) this.#result(sent.key, verdict.result);
    }
    if (verdict.action === 'dead-letter') this.#deadLetter(message, verdict.reason, worker);
  }

  /** I6: everybody gets the committed result. */
  #result(key: string, result: unknown): void {
    const { scenario } = this.#of;
    const committed = this.seen(key)?.result;
    const given = JSON.stringify(result);
    if (committed !== given && !this.#lostAt(key)) this.#of.watch.violation('I6', `${key}: result ${given}, committed is ${committed}`);
    const counted = (result as { run?: number } | undefined)?.run;
    const isUndone = scenario.way === 'transactional' && this.#lostAt(key);
    if (!isUndone && !this.#of.ledger.of(key).some(({ run }) => run.id === counted))
      this.#of.watch.violation('I6', `${key}: the result of run ${counted}, which had no effect`);
  }

  /** A message is put aside only for a reason that is true. */
  #deadLetter({ sent }: Whereabouts, reason: string, worker: Worker): void {
    const { watch, scenario, kernel, broker } = this.#of;
    watch.count('deadLetters');
    const seen = this.seen(sent.key);
    const true_ = {
      terminal: () => sent.kind === 'terminal' && seen?.state === 'parked',
      'max-attempts': () => seen?.state === 'parked' && seen.attempts >= scenario.maxAttempts,
      mismatch: () => this.#hasTwoPayloads(sent.key),
      'invalid-key': () => sent.kind === 'malformed',
      // What is parked is the key: a younger copy shares the fate of the older one.
      'too-old': () => broker.messages.some((each) => each.sent.key === sent.key && kernel.now - each.sentAt > scenario.retentionMs),
    }[reason];
    if (!true_?.() && !this.#lostAt(sent.key))
      watch.violation(
        'I4',
        `${sent.name} (${sent.kind}) was dead-lettered by ${worker.name} as ${reason}; ${seen?.attempts ?? 0} attempts, ${seen?.state}`,
      );
    if (reason === 'too-old') watch.count('tooOld');
    if (reason !== 'max-attempts') return;
    if (sent.kind === 'poison') watch.count('parkedPoison');
    // Where nothing went wrong anywhere, nothing uses up the attempts of a message that its handler can handle.
    const handled = sent.kind === 'plain' || (sent.kind === 'long' && scenario.handlerTimeoutMs > scenario.leaseMs * 10);
    if (handled && this.#calm()) watch.violation('I4', `${sent.name} (${sent.kind}) used up its attempts, and nothing had happened`);
  }

  /** Nothing is forgotten while the run lasts. */
  get #remembers(): boolean {
    return this.#of.scenario.retentionMs > 86_400_000;
  }

  #calm(): boolean {
    const { chance, ledger } = this.#of;
    return (
      chance.faults.every(({ kind }) => kind === 'scenario') &&
      ledger.runs.every(({ worker, outcome }) => worker.alive && outcome !== 'threw')
    );
  }

  #hasTwoPayloads(key: string): boolean {
    return new Set(this.#of.broker.messages.flatMap(({ sent }) => (sent.key === key ? [sent.payload] : []))).size > 1;
  }

  /** I3, I11: a handler starts only under a claim that is current, by the store's own clock. */
  begun(run: Run): void {
    const { watch, kernel, scenario, ledger } = this.#of;
    if (ledger.runs.some((other) => other !== run && other.key === run.key)) watch.count('reruns');
    for (const other of ledger.running) {
      if (other !== run && other.key === run.key && other.worker.alive) {
        watch.count('zombies');
        break;
      }
    }
    this.#tooOld(run);
    if (scenario.way === 'transactional') return;
    const seen = this.seen(run.key);
    // Tokens of the simulated workers begin with their names. One that does not tells nothing of its owner.
    const someone = seen && /^w\d+\.\d+-/.test(seen.token);
    const own = seen?.state === 'claimed' && (!someone || seen.token.startsWith(`${run.worker.name}-`)) && seen.leaseUntil > kernel.now;
    // A clock that runs slow trusts a lease for longer than the store gives it; that matters only where an extension went wrong.
    const late = scenario.drift > 0 && run.worker.excuses.some((at) => at >= kernel.now - scenario.leaseMs * (1 + scenario.drift * 2));
    if (!own && !late && !this.#lostAt(run.key))
      watch.violation('I3', `run ${run.id} of ${run.key} begins on ${run.worker.name}, but the claim is ${seen?.token}'s (${seen?.state})`);
  }

  /** I3: no lease ends under a worker to whom nothing has happened, whatever its clock. */
  lapsed(key: string, { token, leaseUntil }: { readonly token: string; readonly leaseUntil: number }): void {
    const { watch, ledger, scenario } = this.#of;
    const { worker } = ledger.runs.findLast((run) => run.key === key) ?? {};
    if (!worker || !token.startsWith(`${worker.name}-`) || this.#lostAt(key)) return;
    if (worker.excuses.some((at) => at >= leaseUntil - scenario.leaseMs * 2)) return;
    watch.violation('I3', `${key}: the lease of ${worker.name} ended while it ran, and nothing had happened to it`);
  }

  /** I8: what is older than the store remembers may be forgotten, so it never runs as new. */
  #tooOld({ key, attempt, messageId, startedAt, worker }: Run): void {
    const { scenario, broker, watch } = this.#of;
    const { sentAt, sent } = broker.find(messageId);
    // It may have been claimed in time, and have waited for its turn.
    const claimedAt = scenario.way === 'transactional' ? startedAt - unitWaitMs : (this.seen(key)?.claimedAt ?? 0);
    if (attempt !== 1 || claimedAt - sentAt <= scenario.retentionMs) return;
    if (scenario.way === 'transactional' && worker.troubles.some((at) => at >= claimedAt)) return;
    watch.violation('I8', `${sent.name} runs as new on ${worker.name}, ${Math.round((claimedAt - sentAt) / 1_000)} s after it was sent`);
  }

  /** I9: the first effect of a message comes when everything before it in its group is done. */
  effects(effects: readonly Effect[]): void {
    const { broker, watch, ledger } = this.#of;
    if (!broker.ordered) return;
    for (const { run } of effects) {
      if (ledger.of(run.key)[0]!.run !== run) continue;
      const { sent, order } = broker.find(run.messageId);
      for (const before of broker.messages) {
        if (before.order >= order) break;
        if (before.sent.group !== sent.group || before.state !== 'queued' || before.sent.kind === 'malformed') continue;
        // One of two payloads under one key is refused, whichever came later.
        if (this.#hasTwoPayloads(before.sent.key)) continue;
        if (ledger.of(before.sent.key).length > 0 || this.seen(before.sent.key)?.state === 'parked' || this.#lostAt(before.sent.key))
          continue;
        watch.violation('I9', `${sent.name} had its effect before ${before.sent.name} of the same group`);
      }
    }
  }

  /** I10: after `stop` nothing is left of a worker. */
  stopped(worker: Worker, stopAt: number, abandoned: number): void {
    const { watch, ledger, broker, kernel } = this.#of;
    if (worker.timers !== 0) watch.violation('I10', `${worker.name} has stopped and left ${worker.timers} timers`);
    if (abandoned > 0) worker.trouble(true, stopAt);
    for (const run of ledger.running)
      if (run.worker === worker && abandoned === 0) watch.violation('I10', `${worker.name} has stopped, and run ${run.id} goes on`);
    for (const { sent } of broker.messages) {
      const seen = this.seen(sent.key);
      if (seen?.state !== 'claimed' || !seen.token.startsWith(`${worker.name}-`) || seen.leaseUntil <= kernel.now || abandoned > 0)
        continue;
      // A claim whose reply was lost is nobody's to give back, and neither is one that has come back from the dead.
      if (this.#lostAt(sent.key) || worker.troubles.some((at) => at >= seen.claimedAt - 10_000)) continue;
      watch.violation('I10', `${worker.name} has stopped and still holds ${sent.key}`);
    }
  }

  /** Everything that can be said only at the end. */
  final(quiet: boolean): void {
    const { watch, broker, scenario, ledger } = this.#of;
    if (!quiet) {
      const left = broker.messages.filter(({ state }) => state === 'queued').map(({ sent }) => sent.name);
      watch.violation('I4', `not quiet: ${left.join(', ') || 'only copies'} still in the queue`);
    }
    for (const message of broker.messages) {
      const { sent, state, redriven } = message;
      if (quiet && state === 'queued') watch.violation('lost', `${sent.name} is neither done nor dead-lettered`);
      if (redriven && message.deliveries < scenario.maxReceives)
        watch.violation('lost', `${sent.name} was moved away after ${message.deliveries} receives`);
    }
    for (const [key, effects] of ledger.effects) {
      const payloads = new Set(effects.map(({ run }) => run.payload));
      if (payloads.size > 1 && this.#remembers && !this.#lostAt(key)) watch.violation('I7', `${key}: two payloads had effects`);
      if (effects.length > 1) this.#doubled(key, effects);
    }
    if (scenario.way === 'transactional' && this.#remembers) this.#together();
    for (const { sent, messageId } of broker.messages) if (sent.kind === 'poison' && this.#remembers) this.#poison(sent.key, messageId);
  }

  /** I1, I2: in a transaction there is no effect without a record, and no record without an effect, whatever was lost. */
  #together(): void {
    const { broker, ledger, watch } = this.#of;
    for (const key of new Set(broker.messages.map(({ sent }) => sent.key))) {
      const [isRecorded, isDone] = [this.seen(key)?.state === 'completed', ledger.of(key).length > 0];
      if (isRecorded !== isDone) watch.violation('I2', `${key} has ${isDone ? 'an effect and no record' : 'a record and no effect'}`);
    }
  }

  /** I1: a second effect needs an excuse in the leased way, and there is none in the others. */
  #doubled(key: string, effects: readonly Effect[]): void {
    const { watch, scenario } = this.#of;
    // A run's effect may be slower than that of the next run. What has to be excused is that the next one was started.
    const runs = effects.map(({ run }) => run).sort((a, b) => a.id - b.id);
    for (let i = 0; i + 1 < runs.length; i++) {
      const [run, next] = [runs[i]!, runs[i + 1]!];
      const { worker } = run;
      // A copy that comes when the message is forgotten is a new message, but not the message itself (I8). Calls have no age.
      const isOther = next.messageId !== run.messageId || scenario.broker === 'calls';
      if (next.startedAt - run.startedAt > scenario.retentionMs && isOther) continue;
      const excused =
        run.outcome === 'threw' ||
        worker.endedAt <= next.startedAt ||
        this.#lostAt(key)?.some((at) => at >= run.startedAt && at <= next.startedAt) ||
        run.endedAt - run.startedAt >= scenario.handlerTimeoutMs ||
        worker.excuses.some((at) => at >= run.startedAt - scenario.leaseMs && at <= next.startedAt);
      if (scenario.way !== 'leased') watch.violation('I1', `${key}: runs ${run.id} and ${next.id} both had their effect`);
      else if (!excused)
        watch.violation('I1', `${key}: runs ${run.id} and ${next.id} both had their effect, and nothing had happened to ${worker.name}`);
    }
  }

  #poison(key: string, messageId: string): void {
    const { ledger, scenario, broker, watch } = this.#of;
    if (broker.find(messageId).sent.copyOf || this.#lostAt(key)) return;
    const kills = ledger.runs.filter((run) => run.key === key && run.outcome === 'running' && run.worker.end === 'crashed').length;
    // In a transaction the count of a first delivery dies with the process.
    const uncounted =
      scenario.way === 'transactional' ? broker.messages.reduce((sum, each) => sum + (each.sent.key === key ? each.firsts : 0), 0) : 0;
    // On probation its unit becomes smaller with each death, until it is alone and counted. Those who had finished something do not count.
    const closing = scenario.broker === 'kafka-transactions' ? 4 + broker.messages.length : 0;
    if (kills > scenario.maxAttempts + uncounted + closing)
      watch.violation('I4', `${key} killed its process ${kills} times, with ${scenario.maxAttempts} attempts`);
  }
}
