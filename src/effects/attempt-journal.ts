import { type Clock, sleep } from '../clock.ts';
import { ReceiverError } from '../errors.ts';
import type { GuardedJournal } from '../guarded-store.ts';
import type { Lease } from '../lease.ts';
import type { ClaimRef, Entry } from './journal.ts';
import { Known } from './known.ts';

const firstRetryMs = 50;

/** Under which claim an attempt writes its journal. */
export interface StepClaim extends ClaimRef {
  readonly fence: number;
}

/** Where an attempt keeps its journal. */
export interface StepSource {
  readonly journal: GuardedJournal;
  /** Called once, at the first step. */
  claim(): Promise<StepClaim>;
  /** Called when all is done, if the claim was for the steps alone. */
  release?(): Promise<void>;
}

interface Begun {
  readonly claim: StepClaim;
  readonly known: Known;
}

/** The journal of a message as one attempt has it: under its claim, read at the first step. */
export class AttemptJournal {
  readonly #source: StepSource;
  readonly #lease: Lease;
  readonly #clock: Clock;
  readonly #retired: readonly string[];
  #begun: Promise<Begun> | undefined;

  constructor(source: StepSource, lease: Lease, options: { readonly clock: Clock; readonly retired: readonly string[] }) {
    this.#source = source;
    this.#lease = lease;
    this.#clock = options.clock;
    this.#retired = options.retired;
  }

  begin(): Promise<Begun> {
    this.#begun ??= this.#read();
    return this.#begun;
  }

  async #read(): Promise<Begun> {
    const claim = await this.#source.claim();
    // Also on a first attempt: one that was stopped does not count, and a replay counts from 1 again.
    const [entries] = await this.#source.journal.readEntries([{ key: claim.key, token: claim.token }]);
    if (!Array.isArray(entries)) throw this.#claimLost();
    const known = new Known(entries, this.#retired, this.#clock);
    const lease = this.#lease;
    const onAbort = () => known.end(lease.aborted);
    if (lease.signal.aborted) onAbort();
    else lease.signal.addEventListener('abort', onAbort, { once: true });
    return { claim, known };
  }

  /** Records an entry. While the store can't be reached it is tried again, as long as the claim holds. */
  async write(entry: Entry): Promise<void> {
    const { key, token } = (await this.begin()).claim;
    for (let waitMs = firstRetryMs; ; waitMs = Math.min(waitMs * 2, 2_000)) {
      try {
        const [settled] = await this.#source.journal.writeEntries([{ key, token, ...entry }]);
        if (settled === 'ok') return;
        throw this.#claimLost();
      } catch (error) {
        if (!(await sleep(this.#clock, waitMs, this.#lease.signal))) throw error;
      }
    }
  }

  /** Whoever has lost the claim does nothing more. The store decides; here it is only noticed earlier. */
  expectClaim(): void {
    if (this.#lease.aborted) throw this.#lease.aborted;
    if (this.#lease.over) throw this.#claimLost();
  }

  #claimLost(): ReceiverError {
    this.#lease.abort(
      new ReceiverError('claim-lost', 'The claim was lost while its steps were running; another worker may have taken over'),
    );
    return this.#lease.aborted!;
  }

  /** Nobody asks any more. Waits for what is under way, then answers which steps of earlier attempts have not been asked for. */
  async end(quiet: () => Promise<unknown>): Promise<readonly string[]> {
    if (!this.#begun) return [];
    // If it could not be read, all steps have failed, and the handler may have had its reasons not to care.
    const known = this.#begun.then((begun) => begun.known).catch(() => undefined);
    void known.then((each) => each?.end(this.#lease.aborted));
    await quiet();
    await this.#source.release?.();
    return (await known)?.unasked() ?? [];
  }
}
