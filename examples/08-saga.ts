// Steps that belong together: when one fails for good, what was done before it is undone, the last first.
import { attribute, createReceiver, SagaUndone, TerminalError } from 'idempotent-receiver';
import { memoryStore } from 'idempotent-receiver/memory';

const booked: string[] = [];
const book = async (what: string, key: string) => booked.push(`${what} (${key.slice(0, 4)}…)`);
const cancel = async (what: string) =>
  booked.splice(
    booked.findIndex((each) => each.startsWith(what)),
    1,
  );

const receiver = createReceiver(
  { scope: 'trips', key: attribute('id'), store: memoryStore(), results: true },
  async (trip: string[], ctx) => {
    try {
      await ctx.saga('trip', async (saga) => {
        for (const what of trip) {
          await saga.step(
            what,
            async ({ key }) => {
              if (what === 'car') throw new TerminalError('no car is left');
              await book(what, key);
            },
            { undo: () => cancel(what) },
          );
        }
      });
      return `booked: ${trip}`;
    } catch (error) {
      if (error instanceof SagaUndone) return error.message;
      throw error; // anything else: the message comes again, and goes on where it was
    }
  },
);

for (const trip of [
  ['flight', 'hotel'],
  ['train', 'hostel', 'car'],
]) {
  const message = { id: trip.join(), body: JSON.stringify(trip), headers: { id: trip.join() } };
  const [verdict] = await receiver.process([{ message }]);
  console.log(verdict, booked.length, 'bookings');
}
await receiver.stop();
