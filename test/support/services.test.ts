import { execFile, spawn } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
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

async function gone(pid: number): Promise<boolean> {
  for (let left = 200; left > 0 && isRunning(pid); left--) await new Promise((resolve) => setTimeout(resolve, 25));
  return !isRunning(pid);
}

/** The process that listens on a Redis port, as it tells itself. */
async function redisPid(port: number): Promise<number> {
  const { stdout } = await run('redis-cli', ['-p', `${port}`, 'info', 'server']);
  return Number(/process_id:(\d+)/.exec(stdout)![1]);
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

  it('of a test’s own can be killed, and comes back on the same port with its data', async () => {
    const redis = await ownService('redis', ['--appendonly', 'yes', '--appendfsync', 'always']);
    try {
      const { port } = redis.address;
      const call = async (...args: string[]) => (await run('redis-cli', ['-p', `${port}`, ...args])).stdout.trim();
      expect(await call('set', 'k', 'v')).toBe('OK');
      const pid = await redisPid(port);
      await redis.kill();
      expect(isRunning(pid)).toBe(false);
      await redis.restart();
      expect(await call('get', 'k')).toBe('v');
    } finally {
      await redis.stop();
    }
  });

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    it(`ends with the process that has started it, also by ${signal}`, async () => {
      const code = `import { service } from ${JSON.stringify(index)}; console.log((await service('redis')).port); setInterval(() => {}, 1e6);`;
      const env = { ...process.env };
      delete env['TEST_SERVICES_HOST'];
      delete env['TEST_REDIS_URL'];
      const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', code], { env });
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
  it('refuses what it does not know', async () => {
    const node = (...args: string[]) => run(process.execPath, ['--disable-warning=ExperimentalWarning', cli, ...args]);
    await expect(node('up', 'oracle')).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('got oracle') });
    await expect(node('sideways')).rejects.toMatchObject({ code: 2, stderr: 'Expected up, status or down, got sideways\n' });
  });
});
