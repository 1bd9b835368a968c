import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { mavenJars } from './maven.ts';
import { freePort, startProgram, temporaryFolder } from './program.ts';
import type { Service } from './start.ts';

const version = '1.6.16';

/** Queue URLs name the host and port that the client asked, so they are right behind a mapped port too. */
const configuration = (port: number) => `
include classpath("application.conf")
node-address { protocol = http, host = "*", port = ${port}, context-path = "" }
rest-sqs { enabled = true, bind-port = ${port}, bind-hostname = "0.0.0.0", sqs-limits = strict }
rest-stats { enabled = false }
queues-storage { enabled = false }
`;

/** ElasticMQ: standard and FIFO queues that block a group in flight and refuse stale receipt handles. Not SQS, but nearer than a mock. */
export const elasticmq: Service<{ readonly endpoint: string }> = {
  title: `ElasticMQ ${version}`,
  variable: 'TEST_ELASTICMQ_URL',
  fromVariable: (endpoint) => ({ endpoint }),
  toVariable: ({ endpoint }) => endpoint,
  install: 'install Java 17 and Maven (Debian: apt-get install openjdk-17-jre-headless maven)',
  async inDocker() {
    const { GenericContainer } = await import('testcontainers');
    const container = await new GenericContainer(`softwaremill/elasticmq-native:${version}`)
      .withCopyContentToContainer([{ content: configuration(9324), target: '/opt/elasticmq.conf' }])
      .withExposedPorts(9324)
      .start();
    return {
      address: { endpoint: `http://${container.getHost()}:${container.getMappedPort(9324)}` },
      stop: async () => void (await container.stop()),
    };
  },
  async here() {
    const jars = await mavenJars(`org.elasticmq:elasticmq-server_2.13:${version}`);
    const folder = await temporaryFolder('elasticmq');
    const port = await freePort();
    const file = join(folder, 'elasticmq.conf');
    await writeFile(file, configuration(port).replace('0.0.0.0', '127.0.0.1'));
    const memory = ['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1'];
    const program = await startProgram('java', [...memory, `-Dconfig.file=${file}`, '-cp', `${jars}/*`, 'org.elasticmq.server.Main'], {
      folder,
      port,
    });
    return { address: { endpoint: `http://127.0.0.1:${port}` }, ...program };
  },
};
