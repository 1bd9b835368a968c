/** What the producer sends: a charge to an account. */
export interface Order {
  readonly id: string;
  readonly account: string;
  /** 1 for the first order of its account, and so on. */
  readonly number: number;
  readonly cents: number;
}

/** A time of work in the life of an order: the fraud check, the call to the bank. Workers die in it, too. */
export async function checkForFraud(_order: Order): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 2 + Math.random() * 2));
}
