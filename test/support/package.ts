import { type ExecFileSyncOptionsWithStringEncoding, execFile, execFileSync } from 'node:child_process';
import { cpSync, globSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, posix, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** The repository's own folder, with a separator at its end. */
export const root = fileURLToPath(new URL('../../', import.meta.url));

export interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly exports: Readonly<Record<string, string>>;
  readonly files: readonly string[];
  readonly scripts: Readonly<Record<string, string>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
  readonly peerDependenciesMeta: Readonly<Record<string, { readonly optional?: boolean }>>;
}

export const read = (path: string): string => readFileSync(join(root, path), 'utf8');
export const manifest = JSON.parse(read('package.json')) as Manifest;

/** Files of a folder that match, as paths from the repository's folder, with `/`. */
export function files(pattern: string): string[] {
  return globSync(pattern, { cwd: root })
    .filter((path) => statSync(join(root, path)).isFile())
    .map((path) => path.replaceAll(sep, '/'))
    .sort();
}

/** The files that belong to the repository: what git tracks or would add; without git, everything that .gitignore's names don't cover. */
export function sources(): string[] {
  try {
    const options = {
      cwd: root,
      encoding: 'utf8' as const,
      stdio: ['ignore', 'pipe', 'ignore'],
      maxBuffer: 2 ** 26,
    } satisfies ExecFileSyncOptionsWithStringEncoding;
    const list = execFileSync('git', ['-c', 'safe.directory=*', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], options);
    const present = new Set(
      list.split('\0').filter((path) => path !== '' && statSync(join(root, path), { throwIfNoEntry: false })?.isFile()),
    );
    if (present.size > 0) return [...present].sort();
  } catch {}
  const ignored = new Set(['.git', 'node_modules', 'dist', '.tmp']);
  const walk = (folder: string): string[] =>
    readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
      const path = posix.join(folder, entry.name);
      if (entry.isDirectory()) return ignored.has(entry.name) ? [] : walk(path);
      return path.endsWith('.tgz') ? [] : [path];
    });
  return walk('').sort();
}

export interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const execute = promisify(execFile);

/** Runs a program to its end, and answers what it printed, whatever its exit code. */
export async function run(cwd: string, command: string, args: readonly string[], timeoutMs = 120_000): Promise<Run> {
  try {
    return { code: 0, ...(await execute(command, args, { cwd, timeout: timeoutMs, maxBuffer: 2 ** 26, env: plainEnvironment() })) };
  } catch (error) {
    const { code, stdout = '', stderr = '', signal } = error as { code?: unknown; stdout?: string; stderr?: string; signal?: string };
    return { code: typeof code === 'number' ? code : 1, stdout, stderr: signal ? `${stderr}\n(ended by ${signal})` : stderr };
  }
}

/** What must succeed. */
async function succeed(cwd: string, command: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await run(cwd, command, args);
  if (code !== 0) throw new Error(`${command} ${args.join(' ')}: exit code ${code}\n${stdout}\n${stderr}`);
  return stdout;
}

/** Without what npm and vitest tell their own children. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS, NODE_ENV, VITEST, FORCE_COLOR, ...rest } = process.env;
  return {
    ...Object.fromEntries(Object.entries(rest).filter(([name]) => !/^(npm_(package|lifecycle)|VITEST_)/.test(name))),
    NO_COLOR: '1',
  };
}

/** TypeScript's compiler as of this repository. It has no API in JavaScript. */
export const tsc = join(root, 'node_modules/typescript/bin/tsc');

export interface Packed {
  /** Where the tarball is. */
  readonly tarball: string;
  /** What is in it. */
  readonly contents: readonly string[];
  /** Makes a project with the tarball installed in it, `within` a folder; below the repository it finds the devDependencies too. */
  project(within: string): Promise<string>;
  remove(): void;
}

/** Copies the sources to a folder of their own, builds and packs them there: what would be published from a clean checkout. */
export async function pack(): Promise<Packed> {
  mkdirSync(join(root, '.tmp'), { recursive: true });
  const stage = mkdtempSync(join(root, '.tmp/stage-'));
  const folders = [stage];
  for (const path of sources()) cpSync(join(root, path), join(stage, path));
  await succeed(stage, process.execPath, [tsc]);
  const [{ filename, files: packed }] = JSON.parse(await succeed(stage, 'npm', ['pack', '--json', '--ignore-scripts'])) as [
    { filename: string; files: { path: string }[] },
  ];
  return {
    tarball: join(stage, filename),
    contents: packed.map(({ path }) => path).sort(),
    async project(within) {
      const folder = mkdtempSync(join(within, 'project-'));
      folders.push(folder);
      writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'project', private: true, type: 'module' }));
      await succeed(folder, 'npm', ['install', '--offline', '--ignore-scripts', '--no-audit', '--no-fund', join(stage, filename)]);
      return folder;
    },
    remove() {
      for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** What a file imports when it is loaded (`now`), for its types only, and when the code gets there (`later`); its own files as paths. */
export function importsOf(path: string): { now: string[]; types: string[]; later: string[] } {
  const text = read(path).replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
  const found = [...text.matchAll(/^\s*(?:import|export)(\s+type)?\b(?:[\s\w{},*$]*?\bfrom)?\s*(['"])([^'"\n]+)\2/gm)];
  const target = (specifier: string) => (specifier.startsWith('.') ? posix.join(posix.dirname(path), specifier) : specifier);
  return {
    now: found.filter((each) => !each[1]).map((each) => target(each[3]!)),
    types: found.filter((each) => each[1]).map((each) => target(each[3]!)),
    later: [...text.matchAll(/\b(?:import|require)\s*\(\s*['"]([^'"\n]+)['"]/g)].map((each) => target(each[1]!)),
  };
}
