import { createServer, connect as dial, type Socket } from 'node:net';
import { later } from './rig.ts';

/** Kafka's numbers of requests. */
export const api = {
  produce: 0,
  offsetFetch: 9,
  initProducerId: 22,
  addPartitions: 24,
  addOffsets: 25,
  endTxn: 26,
  txnOffsetCommit: 28,
} as const;

export interface Fault {
  readonly api: (typeof api)[keyof typeof api];
  /** `request`: it never arrives. `reply`: it is carried out, but nobody is told. `hold`: it arrives late. */
  readonly lost: 'request' | 'reply' | 'hold';
  /** For `hold`. */
  readonly ms?: number;
  /** How many requests of that kind are struck. Default: 1. */
  readonly times?: number;
}

/**
 * A TCP proxy that understands the frames of Kafka's protocol, as far as to tell requests apart, and loses a request or its reply. It is
 * put in between by the `socketFactory` of kafkajs, so that the addresses that brokers advertise go through it too.
 */
export async function faultProxy() {
  let faults: (Fault & { left: number })[] = [];
  let struck = 0;
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    let broker: Socket | undefined;
    let head = Buffer.alloc(0);
    let lostReply: number | undefined;
    let replies = Buffer.alloc(0);
    const end = () => {
      client.destroy();
      broker?.destroy();
    };
    for (const socket of [client]) {
      sockets.add(socket);
      socket.on('error', end).on('close', end);
    }
    client.on('data', (chunk: Buffer) => {
      head = Buffer.concat([head, chunk]);
      if (!broker) {
        const line = head.indexOf('\n');
        if (line < 0) return;
        const [host, port] = head.toString('utf8', 0, line).split(' ');
        head = head.subarray(line + 1);
        broker = dial(Number(port), host);
        sockets.add(broker);
        broker.on('error', end).on('close', end).on('data', onReply);
      }
      while (head.length >= 4 && head.length >= 4 + head.readInt32BE(0)) {
        const frame = head.subarray(0, 4 + head.readInt32BE(0));
        head = head.subarray(frame.length);
        onRequest(Buffer.from(frame));
      }
    });
    function onRequest(frame: Buffer): void {
      const hit = faults.find((fault) => frame.readInt16BE(4) === fault.api && fault.left-- > 0);
      if (!hit) return void broker!.write(frame);
      struck++;
      if (hit.lost === 'request') return end();
      if (hit.lost === 'reply') lostReply = frame.readInt32BE(8);
      if (hit.lost === 'hold') setTimeout(() => broker!.destroyed || broker!.write(frame), hit.ms);
      else broker!.write(frame);
    }
    function onReply(chunk: Buffer): void {
      replies = Buffer.concat([replies, chunk]);
      while (replies.length >= 4 && replies.length >= 4 + replies.readInt32BE(0)) {
        const frame = replies.subarray(0, 4 + replies.readInt32BE(0));
        replies = replies.subarray(frame.length);
        if (frame.readInt32BE(4) === lostReply) return end();
        client.write(frame);
      }
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  later(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return {
    /** For `new Kafka`. */
    socketFactory: ({ host, port: target, onConnect }: { host: string; port: number; onConnect: () => void }) => {
      const socket = dial(port, '127.0.0.1', () => {
        socket.write(`${host} ${target}\n`);
        onConnect();
      });
      socket.setKeepAlive(true, 60_000);
      return socket;
    },
    strike: (next: Fault) => {
      faults = [{ ...next, left: next.times ?? 1 }];
    },
    alsoStrike: (next: Fault) => {
      faults.push({ ...next, left: next.times ?? 1 });
    },
    /** How many faults have come about. */
    struck: () => struck,
  };
}
