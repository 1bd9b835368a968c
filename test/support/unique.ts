import { randomUUID } from 'node:crypto';

/** A name that nobody else has: each test has its own prefix, schema, topic, queue and group. Letters, digits and `_`, 21 at most after `name`. */
export function unique(name: string): string {
  return `${name}_${randomUUID().replaceAll('-', '').slice(0, 20)}`;
}
