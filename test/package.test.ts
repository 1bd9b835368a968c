import { readdirSync, realpathSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tablesUnder } from './support/markdown.ts';
import { files, importsOf, manifest, type Packed, pack, read, run, sources } from './support/package.ts';

/** A store or broker is a file, or a folder with an index.ts, named by its technology; `sql` is about transactions of others. */
const adapters = new Map(
  [...files('adapters/{stores,brokers}/{*.ts,*/index.ts}'), ...files('adapters/sql/index.ts')].map(
    (path) => [/([^/]+?)(?:\/index)?\.ts$/.exec(path)![1]!, path] as const,
  ),
);

describe('the repository', () => {
  it('has nothing at its top level but what belongs there', () => {
    const expected = new Set([
      ...['.ci', '.github', 'adapters', 'bench', 'examples', 'src', 'test'],
      ...['.gitignore', '.npmrc', 'README.md', 'package-lock.json', 'package.json', 'tsconfig.json'],
    ]);
    const found = new Set(sources().map((path) => path.split('/')[0]!));
    expect([...found].filter((name) => !expected.has(name))).toEqual([]);
  });

  it('names no path of anybody’s machine, and no registry', () => {
    const paths = /(?<![\w.}/-])\/(?:home|root|work|Users|private|mnt)\/\w|\b[A-Z]:\\\\?(?:Users|work)\b/;
    const hosts = /https?:\/\/(?:registry|npm|nexus|artifactory|verdaccio)\b|"resolved":\s*"http|_auth[T]oken/;
    for (const path of sources().filter((each) => !each.startsWith('bench/results/'))) {
      const found = read(path)
        .split('\n')
        .findIndex((line) => paths.test(line) || hosts.test(line));
      expect(found, `${path}:${found + 1}`).toBe(-1);
    }
  });

  it('has a lock file that `npm ci` accepts on every platform: what is optional in it is listed too', () => {
    type Locked = { readonly optionalDependencies?: Readonly<Record<string, string>> };
    const { packages } = JSON.parse(read('package-lock.json')) as { packages: Readonly<Record<string, Locked>> };
    const listed = new Set(Object.keys(packages).map((path) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)));
    const missing = Object.values(packages).flatMap((each) =>
      Object.keys(each.optionalDependencies ?? {}).filter((name) => !listed.has(name)),
    );
    expect(missing).toEqual([]);
  });

  it('is tested on the Node that was asked for', () => {
    const asked = process.env['NODE_UNDER_TEST'];
    const brought = (JSON.parse(read('node_modules/node/package.json')) as { version: string }).version;
    if (asked) expect(dirname(realpathSync(process.execPath))).toBe(realpathSync(asked));
    else if (process.env['npm_lifecycle_event']) expect(process.versions.node).toBe(brought);
    expect(Number(process.versions.node.split('.')[0])).toBeGreaterThanOrEqual(22);
  });
});

describe('package.json', () => {
  it('exports the core, its testing kit, and each adapter by a line of its own', () => {
    const dist = (path: string) => `./dist/${path.replace(/\.ts$/, '.js')}`;
    const expected: Record<string, string> = { '.': dist('src/index.ts'), './testing': dist('src/testing/index.ts') };
    for (const [name, path] of adapters) expected[`./${name}`] = dist(path);
    expect(manifest.exports).toEqual(expected);
  });

  it('has all its entries but the core in the README’s table of adapters, and the table has nothing else', () => {
    const [rows = []] = tablesUnder('README.md', /^adapters/i);
    const named = rows.map((row) => /`idempotent-receiver\/([\w-]+)`/.exec(row.join(' '))?.[1]);
    expect(named.sort()).toEqual([...adapters.keys(), 'testing'].sort());
  });

  it('has no dependency; clients are optional peers, and tested with', () => {
    expect(manifest.dependencies).toBeUndefined();
    expect(Object.keys(manifest)).not.toContain('optionalDependencies');
    expect(Object.keys(manifest)).not.toContain('bundleDependencies');
    for (const name of Object.keys(manifest.peerDependencies)) {
      expect(manifest.peerDependenciesMeta[name], name).toEqual({ optional: true });
      expect(manifest.devDependencies, name).toHaveProperty([name]);
    }
  });

  it('is of the version that the change log opens with', () => {
    expect(/^## .*?(\d+\.\d+\.\d+)/m.exec(read('.github/CHANGELOG.md'))?.[1]).toBe(manifest.version);
  });
});

describe('imports', () => {
  it('of src go nowhere but to src and Node', () => {
    const strays = files('src/**/*.ts').flatMap((path) => {
      const { now, types, later } = importsOf(path);
      return [...now, ...types, ...later].map((target) => ({ path, target })).filter(({ target }) => !/^(src\/|node:)/.test(target));
    });
    expect(strays).toEqual([]);
  });

  it('of an adapter go nowhere but to src, its own folder and Node; clients are passed in, or loaded when they are needed', () => {
    const strays = files('adapters/**/*.ts').flatMap((path) => {
      const own = `${path.split('/').slice(0, 3).join('/')}/`;
      const { now, types, later } = importsOf(path);
      return [
        ...[...now, ...types]
          .filter((target) => !/^(src\/|node:)/.test(target) && !target.startsWith(own))
          .map((target) => ({ path, target })),
        ...later.map((target) => ({ path, target, later: true })),
      ];
    });
    // The commands that a plain SQSClient takes are classes of its package: the one client that has to be loaded, and only then.
    expect(strays).toEqual([{ path: 'adapters/brokers/sqs/client.ts', target: '@aws-sdk/client-sqs', later: true }]);
  });
});

it('no source file has more than 400 lines', () => {
  const long = files('{src,adapters}/**/*.ts').filter((path) => read(path).trimEnd().split('\n').length > 400);
  expect(long).toEqual([]);
});

describe('the published package', () => {
  let packed: Packed;
  let project: string;
  beforeAll(async () => {
    packed = await pack();
    project = await packed.project(realpathSync(tmpdir()));
  });
  afterAll(() => packed?.remove());

  it('contains what was built, and the files that are listed', () => {
    const built = files('{src,adapters}/**/*.ts').flatMap((path) => ['.js', '.d.ts'].map((end) => `dist/${path.replace(/\.ts$/, end)}`));
    expect(packed.contents).toEqual([...built, '.github/CHANGELOG.md', '.github/LICENSE', 'README.md', 'package.json'].sort());
  });

  it('installs nothing but itself', () => {
    expect(readdirSync(join(project, 'node_modules')).filter((name) => !name.startsWith('.'))).toEqual([manifest.name]);
  });

  it.each(Object.keys(manifest.exports))('gives `%s` to plain Node, with no client installed, and prints nothing', async (entry) => {
    const name = entry.replace('.', manifest.name);
    const code = `import(${JSON.stringify(name)}).then((all) => { if (!Object.keys(all).length) process.exit(3) })`;
    expect(await run(project, process.execPath, ['--input-type=module', '--eval', code])).toEqual({ code: 0, stdout: '', stderr: '' });
  });
});
