/** A promise that knows whether anybody has asked what becomes of it. */
class Watched<T> extends Promise<T> {
  asked = false;

  /** Those that follow from it are others' business. */
  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  // biome-ignore lint/suspicious/noThenProperty: it is a promise
  override then<A = T, B = never>(...on: Parameters<Promise<T>['then']>): Promise<A | B> {
    this.asked = true;
    return this.tell(...on) as Promise<A | B>;
  }

  /** `then`, without having asked. */
  tell(...on: Parameters<Promise<T>['then']>): Promise<unknown> {
    return super.then(...on);
  }
}

/** What somebody has begun and may forget to wait for. That it fails must neither be lost then nor end the process. */
export class UnderWay {
  readonly #works = new Set<Promise<unknown>>();
  readonly #failed: { readonly work: Watched<unknown>; readonly error: unknown }[] = [];

  /** What is not done yet. */
  get left(): readonly Promise<unknown>[] {
    return [...this.#works];
  }

  add<T>(promise: Promise<T>): Promise<T> {
    const work = new Watched<T>((resolve) => resolve(promise));
    this.#works.add(work);
    void work.tell(
      () => this.#works.delete(work),
      (error: unknown) => {
        this.#works.delete(work);
        this.#failed.push({ work, error });
      },
    );
    return work;
  }

  /** Waits until nothing is left, also of what follows from it. */
  async quiet(): Promise<void> {
    while (this.#works.size > 0) await Promise.allSettled(this.#works);
  }

  /** @throws the error of the first that has failed without anybody having asked for it */
  check(): void {
    const forgotten = this.#failed.find(({ work }) => !work.asked);
    if (forgotten) throw forgotten.error;
  }
}
