import { type FaultProxy, proxyTo } from './proxy.ts';
import { ownService } from './services/index.ts';
import { freePort } from './services/program.ts';

/** A Kafka of one's own behind a proxy, which it advertises: whatever clients are told first, they go through the proxy. */
export async function proxiedKafka(): Promise<{
  readonly server: Awaited<ReturnType<typeof ownService<'kafka'>>>;
  readonly proxy: FaultProxy;
  /** `host:port` of the proxy. */
  readonly url: string;
}> {
  const port = await freePort();
  const url = `127.0.0.1:${port}`;
  const server = await ownService('kafka', [`advertised.listeners=PLAINTEXT://${url}`]);
  const [host, brokerPort] = server.address.brokers[0]!.split(':');
  return { server, proxy: await proxyTo({ host: host!, port: Number(brokerPort) }, port), url };
}
