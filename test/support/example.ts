/** `npm run example -- 05-kafka`: runs one example of `examples/`, with the services that it needs. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { exampleVariables } from './example-services.ts';
import { root } from './package.ts';
import { stopAll } from './services/index.ts';

const [name] = process.argv.slice(2);
const path = `examples/${name}.ts`;
if (!name || !existsSync(`${root}${path}`)) {
  const names = readdirSync(`${root}examples`).flatMap((file) => (file.endsWith('.ts') ? [file.slice(0, -3)] : []));
  console.error(`Expected the name of an example (${names.join(', ')}), got ${name ?? 'none'}`);
  process.exit(2);
}
try {
  const env = { ...process.env, ...(await exampleVariables(path)) };
  const quiet = ['--disable-warning=ExperimentalWarning', '--disable-warning=TimeoutNegativeWarning'];
  [process.exitCode] = await once(spawn(process.execPath, [...quiet, path], { cwd: root, env, stdio: 'inherit' }), 'exit');
} finally {
  await stopAll();
}
