/* A process of its own that claims keys in Redis, started by redis-processes.test.ts. */
import '../../support/ends-with-parent.ts';
import { Cluster, Redis } from 'ioredis';
import { redisStore } from '../../../adapters/stores/redis/index.ts';
import { beChild, claimAll } from './processes.ts';

const [kind, prefix, nodes] = process.argv.slice(2) as ['server' | 'compact' | 'cluster', string, string];
const [client, keys, size] = process.argv.slice(5).map(Number) as [number, number, number];
const [first] = nodes.split(',');
const connection =
  kind === 'cluster'
    ? new Cluster(nodes.split(',').map((node) => ({ host: node.split(':')[0]!, port: Number(node.split(':')[1]) })))
    : new Redis(`redis://${first}`);
const store = redisStore(connection, { prefix, ...(kind === 'compact' ? { compact: { retentionMs: 100_000 } } : {}) });

await beChild(() => claimAll(store, client, keys, size));
connection.disconnect();
