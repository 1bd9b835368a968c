/**
 * The numbers of the demo. What takes minutes in production takes a second here, so that thirty seconds hold many crashes. Both
 * consumers get the same.
 */

/** What the demo promises to show, on each side. It fails if it did less. */
export const promised = { orders: 2_000, kills: 30, stops: 15 };

export const workersPerSide = 4;
export const accountsPerQueue = 20;

export const ordersPerSecond = 100;
/** More orders than promised are sent where the chaos hand has not done its work and the queues hold fewer messages than this. */
export const fewMessages = 100;
/** Part of the orders that are sent twice, and part that are sent three times. */
export const sentTwice = 0.2;
export const sentThrice = 0.1;

/** How long SQS hides a received message from other workers. Whoever takes longer, or dies, gives it back this way. */
export const visibilityMs = 1_000;
/** The receiver's lease on a message that comes again. Shorter than the visibility, as the library demands. */
export const leaseMs = 800;
/** How long a call of the store may take. Long, because a worker that is stopped in a transaction makes all others wait. */
export const storeTimeoutMs = 700;
/** How long the naive consumer's mark lasts: longer than the visibility on one queue, shorter on the other. See naive-worker.ts. */
export const markMs = { standard: 600_000, fifo: 500 };

/** A few more of each than promised, because one that came too late does not count. */
export const kills = 32;
export const stops = 16;
/** Between two blows of the chaos hand. */
export const gapMs = 80;
/** How long a stopped worker stays stopped: longer than its lease and than the visibility of what it holds. */
export const stoppedMs = { atLeast: 1_050, atMost: 1_300 };

/** Limits for machines that are slow or busy. A demo that reaches one of them fails, and says so. */
export const limits = { chaosMs: 75_000, drainMs: 75_000, wholeMs: 180_000 };
