import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { files, type Packed, pack, read, root, run } from './support/package.ts';
import { service, variableOf } from './support/services/index.ts';

/** What Node says of itself, and of kafkajs's first timer. */
const quiet = ['--disable-warning=ExperimentalWarning', '--disable-warning=TimeoutNegativeWarning'];

/** An example is told where its services are by the variables that it reads. */
const services = { TEST_KAFKA_BROKERS: 'kafka', TEST_POSTGRES_URL: 'postgres' } as const;

describe('each example runs, with the package as it would be published', () => {
  let packed: Packed;
  let project: string;
  beforeAll(async () => {
    packed = await pack();
    project = await packed.project(join(root, '.tmp'));
    cpSync(join(root, 'examples'), join(project, 'examples'), { recursive: true });
  });
  afterAll(() => packed?.remove());

  it.each(files('examples/*.ts'))('%s', async (path) => {
    for (const [variable, name] of Object.entries(services)) {
      if (read(path).includes(variable)) process.env[variable] ??= variableOf(name, (await service(name)) as never)[1];
    }
    const { code, stdout, stderr } = await run(project, process.execPath, [...quiet, path]);
    expect(code, `${stdout}\n${stderr}`).toBe(0);
    expect(stderr).toBe('');
    expect(stdout).not.toBe('');
  });
});
