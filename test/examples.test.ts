import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { files, type Packed, pack, read, root, run } from './support/package.ts';
import { service } from './support/services/index.ts';

/** What Node says of itself, and of kafkajs's first timer. */
const quiet = ['--disable-warning=ExperimentalWarning', '--disable-warning=TimeoutNegativeWarning'];

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
    // An example is told where its service is by the variable that it reads.
    if (read(path).includes('TEST_KAFKA_BROKERS')) process.env['TEST_KAFKA_BROKERS'] ??= (await service('kafka')).brokers.join(',');
    const { code, stdout, stderr } = await run(project, process.execPath, [...quiet, path]);
    expect(code, `${stdout}\n${stderr}`).toBe(0);
    expect(stderr).toBe('');
    expect(stdout).not.toBe('');
  });
});
