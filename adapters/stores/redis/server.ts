import { ReceiverError } from '../../../src/errors.ts';
import type { Connection, Send } from './client.ts';
import type { Layout } from './layout.ts';

/** What a crash of the server can take with it: the weakest of the primaries. Compare with the README's table. */
export interface RedisDurability {
  /** `appendfsync` of the append-only file; `off`: there is none; `unknown`: the server does not tell. */
  readonly appendOnly: 'always' | 'everysec' | 'no' | 'off' | 'unknown';
  /** Whether snapshots are made from time to time; undefined if the server does not tell. */
  readonly snapshots: boolean | undefined;
  /** Replicas that are connected. */
  readonly replicas: number;
  /** `maxmemory-policy`; `unknown` if the server does not tell. */
  readonly evictionPolicy: string;
}

/** Refuses servers that would forget records, or that others use with another layout. @throws ReceiverError `store` */
export async function checkServers(connection: Connection, layout: Layout, allowEviction: boolean): Promise<void> {
  const { send } = connection;
  const other = (await send('get', [layout.layoutKey])) ?? (await send('set', [layout.layoutKey, layout.text, 'nx', 'get'])) ?? layout.text;
  if (String(other) !== layout.text) {
    throw new ReceiverError(
      'store',
      `Expected the records under this prefix to have the layout "${layout.text}", got "${other}": other processes use other options. To change them, choose another \`prefix\``,
    );
  }
  for (const send of primaries(connection)) {
    const info = await infoOf(send);
    if (info['role'] !== 'master') throw new ReceiverError('store', `Expected a primary, got a server of role ${info['role']}`);
    const policy = await policyOf(send, info);
    if (policy !== 'noeviction' && !allowEviction) {
      throw new ReceiverError(
        'store',
        `Expected Redis's maxmemory-policy to be noeviction, got ${policy}: it would forget records when memory is full. Set it, or allow that with \`allowEviction: true\``,
      );
    }
  }
}

export async function durabilityOf(connection: Connection, layout: Layout): Promise<RedisDurability> {
  // A cluster has no nodes before its client has connected.
  await connection.send('exists', [layout.layoutKey]);
  const all = await Promise.all(primaries(connection).map(durabilityOfOne));
  const least = <T>(order: readonly T[], values: readonly T[]): T => order.find((each) => values.includes(each))!;
  return {
    appendOnly: least(
      ['unknown', 'off', 'no', 'everysec', 'always'] as const,
      all.map(({ appendOnly }) => appendOnly),
    ),
    snapshots: least(
      [undefined, false, true],
      all.map(({ snapshots }) => snapshots),
    ),
    replicas: Math.min(...all.map(({ replicas }) => replicas)),
    evictionPolicy: all.map(({ evictionPolicy }) => evictionPolicy).find((each) => each !== 'noeviction') ?? 'noeviction',
  };
}

async function durabilityOfOne(send: Send): Promise<RedisDurability> {
  const info = await infoOf(send);
  const sync = (await configOf(send, 'appendfsync')) ?? 'unknown';
  const save = await configOf(send, 'save');
  return {
    appendOnly:
      info['aof_enabled'] === '0'
        ? 'off'
        : info['aof_enabled'] === '1' && /^(always|everysec|no)$/.test(sync)
          ? (sync as 'always')
          : 'unknown',
    snapshots: save === undefined ? undefined : save !== '',
    replicas: Number(info['connected_slaves'] ?? 0),
    evictionPolicy: await policyOf(send, info),
  };
}

function primaries(connection: Connection): readonly Send[] {
  const all = connection.primaries();
  if (all.length === 0) throw new ReceiverError('store', 'Expected the cluster to have primaries, got none');
  return all;
}

async function policyOf(send: Send, info: Readonly<Record<string, string>>): Promise<string> {
  return info['maxmemory_policy'] ?? (await configOf(send, 'maxmemory-policy')) ?? 'unknown';
}

async function infoOf(send: Send): Promise<Readonly<Record<string, string>>> {
  const text = String(await send('info', []));
  return Object.fromEntries(
    text.split('\r\n').flatMap((line) => (/^(\w+):(.*)$/.exec(line) ? [/^(\w+):(.*)$/.exec(line)!.slice(1, 3)] : [])),
  );
}

/** Undefined if the server forbids CONFIG, as some hosted ones do. */
async function configOf(send: Send, name: string): Promise<string | undefined> {
  try {
    const reply = await send('config', ['get', name]);
    const value = Array.isArray(reply) ? reply[1] : Object.values(reply as object)[0];
    return value === undefined ? undefined : String(value);
  } catch (error) {
    if (error instanceof Error && /^(ERR unknown|NOPERM)/.test(error.message)) return undefined;
    throw error;
  }
}
