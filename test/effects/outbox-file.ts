import { appendFileSync } from 'node:fs';
import type { Destination } from '../../src/index.ts';

/** A file that stands for a broker: a line `orderingKey id body` for each message. `at` is told where it is; a body `poison` kills the process. */
export function fileDestination(file: string, { at = (_place: string) => {}, sendMs = 0, poison = '' } = {}): Destination {
  return {
    async send(messages) {
      at('before send');
      for (const [i, { orderingKey, id, body }] of messages.entries()) {
        if (i === messages.length >> 1) at('half sent');
        const text = Buffer.from(body!).toString();
        if (text === poison) process.kill(process.pid, 'SIGKILL');
        appendFileSync(file, `${orderingKey ?? '-'} ${id} ${text}\n`);
        if (sendMs > 0) await new Promise((resolve) => setTimeout(resolve, sendMs));
      }
      at('after send');
      return messages.map(() => ({ state: 'sent' }));
    },
  };
}
