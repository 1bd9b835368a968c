import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** `group:artifact:version`. */
type Coordinates = `${string}:${string}:${string}`;

/**
 * The jars of a Maven artefact and all that it needs at run time, fetched once into `node_modules/.cache`. Two runs that fetch at once don't
 * see each other's halves.
 */
export async function mavenJars(coordinates: Coordinates, ...more: readonly Coordinates[]): Promise<string> {
  const [, artifactId, version] = coordinates.split(':');
  const cache = new URL('../../../node_modules/.cache/idempotent-receiver/', import.meta.url).pathname;
  const folder = join(cache, `${artifactId}-${version}`);
  if (existsSync(folder)) return folder;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, 'fetch-'));
  try {
    const dependencies = [coordinates, ...more].map((each) => {
      const [group, artifact, number] = each.split(':');
      return `<dependency><groupId>${group}</groupId><artifactId>${artifact}</artifactId><version>${number}</version></dependency>`;
    });
    const project = `<modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>test</artifactId><version>1</version>`;
    await writeFile(join(work, 'pom.xml'), `<project>${project}<dependencies>${dependencies.join('')}</dependencies></project>`);
    const jars = join(work, 'jars');
    const args = [
      '-q',
      '-B',
      '-f',
      join(work, 'pom.xml'),
      'dependency:copy-dependencies',
      '-DincludeScope=runtime',
      `-DoutputDirectory=${jars}`,
    ];
    await run('mvn', args, { timeout: 300_000 });
    await rename(jars, folder).catch((error: unknown) => {
      if (!existsSync(folder)) throw error;
    });
    return folder;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
