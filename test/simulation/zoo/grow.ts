import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Bug, Patch } from './bug.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const parts = [
  ...['src', 'adapters', 'test/simulation', 'package.json', 'test/adapters/brokers/sqs/model.ts'],
  ...['log', 'group', 'cluster', 'consumer', 'transactions', 'client'].map((name) => `test/adapters/brokers/kafka/model-${name}.ts`),
];

/** Copies the code and puts a bug into the copy. Answers the copy's folder. @throws if the bug has nowhere to sit any more */
export function grow(bug: Bug, id: string): string {
  const folder = join(root, '.tmp', 'zoo', id);
  rmSync(folder, { recursive: true, force: true });
  for (const part of parts) {
    mkdirSync(dirname(join(folder, part)), { recursive: true });
    cpSync(join(root, part), join(folder, part), { recursive: true });
  }
  for (const patch of bug.patches) {
    const path = join(folder, patch.file);
    writeFileSync(path, patched(bug, patch, readFileSync(path, 'utf8')));
  }
  return folder;
}

/** @throws if a bug has nowhere to sit in the code as it is. */
export function fits(bug: Bug): void {
  const texts = new Map<string, string>();
  for (const patch of bug.patches) {
    const text = texts.get(patch.file) ?? readFileSync(join(root, patch.file), 'utf8');
    texts.set(patch.file, patched(bug, patch, text));
  }
}

function patched({ name }: Bug, { file, from, to }: Patch, text: string): string {
  const found = text.split(from).length - 1;
  if (found !== 1)
    throw new Error(`Bug "${name}": expected ${JSON.stringify(from)} once in ${file}, found it ${found} times: move the bug`);
  // `$&` stands for what was there.
  return text.replace(from, () => to.replace('$&', () => from));
}

export function uproot(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}
