import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { freePort, type Program, temporaryFolder } from './program.ts';
import { installRedis, startRedis } from './redis.ts';
import type { Service } from './start.ts';

const run = promisify(execFile);

export interface ClusterAddress {
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
}

/** A Redis Cluster of three masters, without replicas. Settings are given to each node. */
export const redisCluster: Service<ClusterAddress> = {
  title: 'a Redis Cluster',
  variable: 'TEST_REDIS_CLUSTER',
  fromVariable: (list) => ({
    nodes: list.split(',').map((each) => {
      const [host, port] = each.trim().split(':');
      return { host: host!, port: Number(port) };
    }),
  }),
  toVariable: ({ nodes }) => nodes.map(({ host, port }) => `${host}:${port}`).join(','),
  install: 'install Redis (Debian: apt-get install redis-server; done by itself when root)',
  inDocker: () => Promise.reject(new Error('the nodes of a cluster tell clients addresses that exist only inside of Docker')),
  async here(settings = []) {
    await installRedis();
    const nodes = await Promise.all([0, 1, 2].map(() => startNode(settings)));
    const each = (act: (node: Program) => unknown) => Promise.all(nodes.map(({ program }) => act(program)));
    const ports = nodes.map(({ port }) => `127.0.0.1:${port}`);
    const stop = async () => void (await each((node) => node.stop()));
    try {
      await run('redis-cli', ['--cluster', 'create', ...ports, '--cluster-yes'], { timeout: 60_000 });
      await untilReady(nodes.map(({ port }) => port));
    } catch (error) {
      await stop();
      throw error;
    }
    return {
      address: { nodes: nodes.map(({ port }) => ({ host: '127.0.0.1', port })) },
      kill: async () => void (await each((node) => node.kill())),
      pause: () => void each((node) => node.pause()),
      resume: () => void each((node) => node.resume()),
      async restart() {
        await each((node) => node.restart());
        await untilReady(nodes.map(({ port }) => port));
      },
      stop,
    };
  },
};

async function startNode(settings: readonly string[]): Promise<{ port: number; program: Program }> {
  const folder = await temporaryFolder('redis-cluster');
  // The bus between the nodes has a port of its own, which needn't be 10,000 more and so out of range.
  const [port, bus] = [await freePort(), await freePort()];
  const own = ['--port', `${port}`, '--cluster-port', `${bus}`, '--cluster-enabled', 'yes', '--cluster-node-timeout', '2000'];
  const args = [...own, '--bind', '127.0.0.1', '--dir', folder, '--save', '', ...settings];
  return { port, program: await startRedis(args, { folder, port }) };
}

/** Each node learns by gossip that all slots are served. */
async function untilReady(ports: readonly number[]): Promise<void> {
  for (const giveUpAt = performance.now() + 20_000; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
    const infos = await Promise.all(ports.map((port) => run('redis-cli', ['-p', `${port}`, 'cluster', 'info'])));
    if (infos.every(({ stdout }) => stdout.includes('cluster_state:ok') && stdout.includes('cluster_known_nodes:3'))) return;
    if (performance.now() > giveUpAt) throw new Error(`The cluster is not ready: ${infos[0]!.stdout}`);
  }
}
