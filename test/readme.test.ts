import { existsSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { deaths, titleOf } from './support/failures.ts';
import { generated } from './support/generated.ts';
import { type Block, blocksOf, proseOf, tablesUnder } from './support/markdown.ts';
import { manifest, type Packed, pack, read, root, run, tsc } from './support/package.ts';

/*
 * Every ts block is compiled against the package as it would be published. HTML comments right before a block, which readers don't see,
 * say more of it:
 *
 *   <!-- run -->         It is run too, and must end with exit code 0. A text block right after it is what it prints.
 *   <!-- given CODE -->  Code that goes before the block: what a reader of it has anyway.
 *   <!-- then CODE -->   Code that goes after it: to run it through to its end, and to assert.
 */
const documents = ['README.md', '.github/CONTRIBUTING.md'];
const blocks = documents.flatMap(blocksOf).filter(({ language }) => language === 'ts');
const fileOf = (block: Block) => `${block.where.replace(/^.*\/|\.md/g, '').replace(':', '-')}.ts`;

describe('code in the documents', () => {
  let packed: Packed;
  let project: string;
  let complaints: string;
  beforeAll(async () => {
    packed = await pack();
    // Below the repository, so that the clients in its node_modules are found.
    project = await packed.project(join(root, '.tmp'));
    for (const block of blocks)
      writeFileSync(join(project, fileOf(block)), `${noted(block, 'given')}${block.code}${noted(block, 'then')}export {};\n`);
    const compilerOptions = {
      ...{ module: 'nodenext', target: 'es2022', lib: ['es2023'], types: ['node'], outDir: 'out', rootDir: '.' },
      ...{ strict: true, noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, noEmitOnError: false },
    };
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }));
    complaints = (await run(project, process.execPath, [tsc])).stdout;
  });
  afterAll(() => packed?.remove());

  it.each(blocks.map((block) => [block.where, block] as const))('%s compiles', (_, block) => {
    expect(complaints.split('\n').filter((line) => line.startsWith(fileOf(block)))).toEqual([]);
  });

  it('compiles with the declarations of the package, checked too', () => {
    expect(complaints).toBe('');
  });

  it.each(blocks.filter(({ notes }) => notes.includes('run')).map((block) => [block.where, block] as const))(
    '%s runs',
    async (_, block) => {
      const compiled = join('out', fileOf(block).replace(/ts$/, 'js'));
      const { code, stdout, stderr } = await run(project, process.execPath, ['--disable-warning=ExperimentalWarning', compiled]);
      expect(code, `${stdout}\n${stderr}`).toBe(0);
      expect(stderr).toBe('');
      if (block.prints !== undefined) expect(stdout).toBe(block.prints);
    },
  );

  it('shows a method decorator that runs, as tsc emits it', () => {
    const block = blocks.find(({ code }) => /^ *@\w+\(/m.test(code));
    expect(block?.notes).toContain('run');
  });

  it('has each note understood', () => {
    for (const { where, notes } of blocks) for (const note of notes) expect(note, where).toMatch(/^(run$|given\s|then\s)/);
  });
});

describe('what the documents say', () => {
  it('is how to run everything: the commands that .ci/run runs, and scripts that exist', () => {
    const shell = documents.flatMap(blocksOf).filter(({ language }) => language === 'sh');
    const lines = shell.flatMap(({ code }) => code.trim().split('\n'));
    expect(lines).toContain('npm cit');
    expect(lines).toContain('npm ci && npm run demo');
    const scripts = documents.flatMap((path) => [...read(path).matchAll(/npm run ([\w:]+)/g)].map((match) => match[1]!));
    expect(scripts.filter((name) => !(name in manifest.scripts))).toEqual([]);
  });

  it.each(documents)('%s links to what exists', (path) => {
    const targets = [...proseOf(path).matchAll(/\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)/g)].map((match) => match[1]!);
    expect(targets.filter((target) => !existsSync(join(root, dirname(path), target)))).toEqual([]);
  });

  it.each(documents)('%s names tests that exist', (path) => {
    const named = [...read(path).matchAll(/\btest\/[\w./-]+\.ts\b/g)].map((match) => match[0]);
    expect(named.filter((each) => !existsSync(join(root, each)))).toEqual([]);
  });

  it('names for each failure in the README’s table a test that has the title that is quoted', () => {
    const rows = tablesUnder('README.md', /^what happens if/i).flat();
    expect(rows.length).toBeGreaterThan(5);
    for (const row of rows) expect(proofsIn(row.at(-1)!), row[0]).not.toEqual([]);
  });

  it.each(generated)(
    '$path has the tables that `npm run tables` makes: of what the tests assert, and of what runs have found',
    ({ path, make }) => {
      expect(read(path)).toBe(make(read(path)));
    },
  );

  it('quotes titles of tests as they are', () => {
    const proofs = tablesUnder('README.md', /./)
      .flat()
      .flatMap((row) => proofsIn(row.at(-1)!));
    const deathTitles = deaths.map(titleOf);
    const wrong = proofs.filter(
      ({ path, title }) =>
        !read(path).replaceAll('\\', '').includes(title) && !(path === 'test/kill.test.ts' && deathTitles.includes(title)),
    );
    expect(wrong).toEqual([]);
  });

  it('has a row for each option, and no other', () => {
    const rows = tablesUnder('README.md', /^options/i).flat();
    const named = rows.flatMap(([names]) => [...names!.matchAll(/`(\w+)`/g)].map((match) => match[1]!));
    expect(named.sort()).toEqual(optionNames().sort());
  });
});

function noted({ notes }: Block, word: 'given' | 'then'): string {
  return notes
    .filter((note) => note.split(/\s/, 1)[0] === word)
    .map((note) => `${note.slice(word.length)}\n`)
    .join('');
}

/** `test/x.test.ts`: "title", "another title", `test/y.test.ts`: "title" */
function proofsIn(cell: string): { path: string; title: string }[] {
  return [...cell.matchAll(/`(test\/[\w./-]+\.ts)`((?:[^`"]|"[^"]*")*)/g)].flatMap(([, path, rest]) =>
    [...rest!.matchAll(/"([^"]*)"/g)].map(([, title]) => ({ path: path!, title: title! })),
  );
}

/** The options of `createReceiver`, from the types that declare them. */
function optionNames(): string[] {
  const text = read('src/options.ts').replace(/\/\*[\s\S]*?\*\//g, '');
  const interfaces = [...text.matchAll(/^export interface (?:Common|Receiver)Options[\s\S]*?^\}/gm)].join('\n');
  const type = /^export type ReceiverOptions<[\s\S]*?;\n\n/m.exec(text)?.[0] ?? '';
  const members = [...interfaces.matchAll(/^ {2}readonly (\w+)/gm), ...type.matchAll(/readonly (\w+)/g)];
  return [...new Set(members.map((match) => match[1]!))];
}
