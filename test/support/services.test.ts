import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ownService, service, variableOf } from './services/index.ts';
import { type Service, start } from './services/start.ts';

const run = promisify(execFile);
const index = new URL('services/index.ts', import.meta.url).href;
const cli = new URL('services/cli.ts', import.meta.url).pathname;

const isRunning = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

/** The environment of a process that has to start its services itself. */
function alone(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('TEST_')));
}

async function gone(pid: number): Promise<boolean> {
  for (let left = 200; left > 0 && isRunning(pid); left--) await new Promise((resolve) => setTimeout(resolve, 25));
  return !isRunning(pid);
}

async function redisCall(port: number, ...args: string[]): Promise<string> {
  return (await run('redis-cli', ['-p', `${port}`, ...args])).stdout.trim();
}

/** The process that listens on a Redis port, as it tells itself. */
async function redisPid(port: number): Promise<number> {
  return Number(/process_id:(\d+)/.exec(await redisCall(port, 'info', 'server'))![1]);
}

describe('a service', () => {
  const nowhere: Service<string> = {
    title: 'Nowhere 1',
    variable: 'TEST_NOWHERE_URL',
    fromVariable: (value) => value,
    toVariable: (address) => address,
    install: 'build it yourself',
    inDocker: () => Promise.reject(new Error('no such image')),
    here: () => Promise.reject(new Error('no such program')),
  };

  it('that can not be had is an error that says what was tried and what to do', async () => {
    await expect(start('nowhere', nowhere)).rejects.toThrow(
      /These tests need Nowhere 1 \(nowhere\)\. Set TEST_NOWHERE_URL to the address of one, or start Docker, or build it yourself\.\nTried:\n- Docker: .*\n- this machine: Error: no such program/,
    );
  });

  for (const [name, install] of [
    ['redis', 'apt-get install redis-server'],
    ['kafka', 'install Java 17 and Maven'],
    ['elasticmq', 'install Java 17 and Maven'],
    ['dynamodb', 'install Java 17'],
  ] as const) {
    it(`that this machine lacks the program of tells what to install: ${name}`, async () => {
      const code = `import { service } from ${JSON.stringify(index)}; await service('${name}');`;
      const lacking = run(process.execPath, ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', code], {
        env: { ...alone(process.env), PATH: '/nowhere' },
      });
      await expect(lacking).rejects.toMatchObject({ stderr: expect.stringContaining(install) });
    });
  }

  it('is taken from the environment where that names one', async () => {
    process.env['TEST_NOWHERE_URL'] = 'here';
    try {
      expect((await start('nowhere', nowhere)).address).toBe('here');
    } finally {
      delete process.env['TEST_NOWHERE_URL'];
    }
  });

  it('is started once for the whole run', async () => {
    const [one, two] = await Promise.all([service('redis'), service('redis')]);
    expect(one).toEqual(two);
    expect(variableOf('redis', one)).toEqual(['TEST_REDIS_URL', one.url]);
  });

  it('of a test’s own that is paused does nothing any more when it is killed, not even what it has been sent', async () => {
    const redis = await ownService('redis', ['--appendonly', 'yes', '--appendfsync', 'always']);
    try {
      const { port } = redis.address;
      // Who is woken up before it is killed may be too slow to do anything: not every time.
      for (let round = 0; round < 5; round++) {
        const pid = await redisPid(port);
        const client = connect(port, '127.0.0.1').on('error', () => {});
        client.write('ping\r\n');
        await once(client, 'data');
        redis.pause();
        await new Promise<void>((resolve) => client.write('set late v\r\n', () => resolve()));
        await redis.kill();
        expect(isRunning(pid)).toBe(false);
        await redis.restart();
        expect(await redisCall(port, 'exists', 'late')).toBe('0');
      }
    } finally {
      await redis.stop();
    }
  });

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    it(`ends with the process that has started it, also by ${signal}`, async () => {
      const code = `import { service } from ${JSON.stringify(index)}; console.log((await service('redis')).port); setInterval(() => {}, 1e6);`;
      const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', code], {
        env: alone(process.env),
      });
      const port = await new Promise<number>((resolve, reject) => {
        child.stdout.once('data', (bytes) => resolve(Number(String(bytes))));
        child.stderr.on('data', (bytes) => reject(new Error(String(bytes))));
      });
      const pid = await redisPid(port);
      child.kill(signal);
      expect(await gone(pid)).toBe(true);
    });
  }
});

describe('npm run services', () => {
  const node = async (...args: string[]) => {
    const env = { ...process.env, SERVICES_FOLDER: folder };
    return (await run(process.execPath, ['--disable-warning=ExperimentalWarning', cli, ...args], { env: alone(env) })).stdout.trim();
  };
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'services-'));
  });
  afterEach(async () => {
    await node('down');
    await rm(folder, { recursive: true });
  });

  it('starts services that stay, tells what to put into the environment, and takes them down', async () => {
    const told = await node('up', 'redis');
    const port = Number(/^export TEST_REDIS_URL=redis:\/\/127\.0\.0\.1:(\d+)$/.exec(told)![1]);
    expect(await node('status')).toBe(told);
    expect(await redisCall(port, 'ping')).toBe('PONG');
    await expect(node('up', 'redis')).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('up already') });
    const pid = await redisPid(port);
    expect(await node('down')).toBe('All are down');
    expect(isRunning(pid)).toBe(false);
    expect(await node('status')).toBe('No services are up');
  });

  it('refuses what it does not know', async () => {
    await expect(node('up', 'oracle')).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('got oracle') });
    await expect(node('down', 'redis')).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('Expected no names') });
    await expect(node('sideways')).rejects.toMatchObject({ code: 2, stderr: 'Expected up, status or down, got sideways\n' });
  });
});
