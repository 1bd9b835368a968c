import type { Clock } from '../../../../src/clock.ts';
import { type GroupModel, type GroupWatch, groupModel } from './model-group.ts';
import { type Fetched, type LogRecord, PartitionLog } from './model-log.ts';

/** The brokers of a cluster: topics, and groups with their coordinator. Names of partitions are `topic/number`. */
export class ClusterModel {
  /** Called for each group that is made. */
  watch: ((groupId: string) => GroupWatch) | undefined;
  readonly #clock: Clock;
  readonly #topics = new Map<string, PartitionLog[]>();
  readonly #groups = new Map<string, GroupModel>();
  #waiting: (() => void)[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Of a topic that is there already nothing is left: its offsets begin at 0 again. */
  createTopic(topic: string, partitions = 1): void {
    this.#topics.set(
      topic,
      Array.from({ length: partitions }, (_, i) => new PartitionLog(topic, i)),
    );
  }

  get topics(): string[] {
    return [...this.#topics.keys()];
  }

  partitions(topic: string): readonly PartitionLog[] | undefined {
    return this.#topics.get(topic);
  }

  log(name: string): PartitionLog {
    const at = name.lastIndexOf('/');
    return this.#topics.get(name.slice(0, at))![Number(name.slice(at + 1))]!;
  }

  /** Answers its offset. Consumers that wait learn of it by `wake`. */
  append(name: string, record: Omit<LogRecord, 'offset' | 'timestamp' | 'isControl'> & Partial<LogRecord>): number {
    return this.log(name).append({ timestamp: String(this.#clock.wall()), isControl: false, ...record });
  }

  /** Something has become readable. */
  wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const look of waiting) look();
  }

  /** What is there at these positions; waits for so long if nothing is. */
  async fetch(positions: ReadonlyMap<string, number>, maxWaitMs: number, most: number, all = false): Promise<Fetched[]> {
    const now = () => [...positions].flatMap(([name, from]) => this.log(name).read(from, most, all) ?? []);
    const found = now();
    if (found.length > 0) return found;
    return new Promise((resolve) => {
      const end = () => {
        cancel();
        this.#waiting = this.#waiting.filter((each) => each !== look);
        resolve(now());
      };
      const look = () => (now().length > 0 ? end() : void this.#waiting.push(look));
      const cancel = this.#clock.after(maxWaitMs, end);
      this.#waiting.push(look);
    });
  }

  group(groupId: string): GroupModel {
    let group = this.#groups.get(groupId);
    if (!group) {
      const partitionsOf = (topics: readonly string[]) =>
        topics.flatMap((topic) => this.#topics.get(topic)!.map((_, i) => `${topic}/${i}`));
      group = groupModel(this.#clock, partitionsOf, this.watch?.(groupId));
      this.#groups.set(groupId, group);
    }
    return group;
  }
}
