import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exampleVariables } from './support/example-services.ts';
import { files, type Packed, pack, root, run } from './support/package.ts';

/** What Node says of itself, and of kafkajs's first timer. */
const quiet = ['--disable-warning=ExperimentalWarning', '--disable-warning=TimeoutNegativeWarning'];

// The one with Kafka waits for the sessions of three workers that it kills.
describe('each example runs, with the package as it would be published', { timeout: 120_000 }, () => {
  let packed: Packed;
  let project: string;
  beforeAll(async () => {
    packed = await pack();
    project = await packed.project(join(root, '.tmp'));
    cpSync(join(root, 'examples'), join(project, 'examples'), { recursive: true });
  });
  afterAll(() => packed?.remove());

  it.each(files('examples/*.ts'))('%s', async (path) => {
    Object.assign(process.env, await exampleVariables(path));
    const { code, stdout, stderr } = await run(project, process.execPath, [...quiet, path]);
    expect(code, `${stdout}\n${stderr}`).toBe(0);
    expect(stderr).toBe('');
    expect(stdout).not.toBe('');
  });
});
