import { tell } from './client.ts';

/** What the producer sends: a charge to an account. */
export interface Order {
  readonly id: string;
  readonly account: string;
  /** 1 for the first order of its account, and so on. */
  readonly number: number;
  readonly cents: number;
}

/** Work in the life of an order, which is when most processes die. It takes a millisecond, and longer where much money is at stake. */
export async function checkForFraud({ cents }: Order): Promise<void> {
  const closely = cents > 9_400;
  if (closely) tell('checking');
  await new Promise((resolve) => setTimeout(resolve, closely ? 30 : 1));
}
