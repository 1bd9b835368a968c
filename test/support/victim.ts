/**
 * A worker for one delivery, in a process of its own, that dies or stops where it is told to.
 *
 * argv: file, guarantee, border, message id. Prints a line when it gets there, and its verdict, as JSON.
 */
import './ends-with-parent.ts';
import { DatabaseSync } from 'node:sqlite';
import { sqliteStore } from '../../adapters/stores/sqlite/index.ts';
import { attribute, createReceiver } from '../../src/index.ts';

const [file, guarantee, border, id] = process.argv.slice(2) as [string, 'leased' | 'transactional', string, string];

const db = new DatabaseSync(file);
const effects = new DatabaseSync(file);
effects.exec('pragma busy_timeout = 5000; create table if not exists effects (id text, attempt integer)');
const store = sqliteStore(db);

/** Where this worker is: it dies here, or says so and waits to be stopped and continued. */
async function at(place: string): Promise<void> {
  if (border === `kill ${place}`) process.kill(process.pid, 'SIGKILL');
  if (border !== `stop ${place}`) return;
  process.stdout.write('here\n');
  await new Promise((resolve) => process.stdin.once('data', resolve));
}

const guarded = {
  ...store,
  async claim(asks: Parameters<typeof store.claim>[0]) {
    await at('before claim');
    const answers = await store.claim(asks);
    await at('after claim');
    return answers;
  },
  async settle(ends: Parameters<typeof store.settle>[0]) {
    const settled = await store.settle(ends);
    await at('after record');
    return settled;
  },
  unit: ((work) =>
    store
      .unit(async (unit) => {
        const done = await work(unit);
        await at('before commit');
        return done;
      })
      .then(async (done) => {
        await at('after record');
        return done;
      })) as typeof store.unit,
};

const receiver = createReceiver(
  { scope: 'victim', key: attribute('id'), store: guarded as never as typeof store, guarantee: guarantee as 'leased', leaseMs: 600 },
  async (_, ctx) => {
    await at('before effect');
    const target = (ctx as unknown as { tx?: DatabaseSync }).tx ?? effects;
    target.prepare('insert into effects values (?, ?)').run(id, ctx.attempt);
    await at('after effect');
  },
);

const redelivered = border.startsWith('again');
const [verdict] = await receiver.process([{ message: { id, body: '{}', headers: { id } }, redelivered }]);
await at('before ack');
process.stdout.write(`${JSON.stringify(verdict)}\n`);
await receiver.stop();
process.exit(0);
