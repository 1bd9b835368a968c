import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { mavenJars } from './maven.ts';
import { freePort, startProgram, temporaryFolder } from './program.ts';
import type { Service } from './start.ts';

const run = promisify(execFile);

const version = '4.3.1';

export interface KafkaAddress {
  readonly brokers: readonly string[];
}

/**
 * One node for everything. Groups form at once and may have short sessions; transactions that time out are aborted soon. A killed broker is let in
 * again when its old session is over, so that is short too.
 */
const configuration = (folder: string, port: number, controllerPort: number) => `
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${controllerPort}
listeners=PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}
advertised.listeners=PLAINTEXT://127.0.0.1:${port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=${join(folder, 'data')}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=4
`;

/** Tells what goes wrong, to `log` in its folder. */
const logging = `<Configuration status="ERROR"><Appenders><Console name="out"><PatternLayout pattern="%d %p %m %ex%n"/></Console></Appenders>
<Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers></Configuration>`;

/** Apache Kafka, one node in KRaft mode. */
export const kafka: Service<KafkaAddress> = {
  title: `Apache Kafka ${version}`,
  variable: 'TEST_KAFKA_BROKERS',
  fromVariable: (list) => ({ brokers: list.split(',').map((each) => each.trim()) }),
  toVariable: ({ brokers }) => brokers.join(','),
  install: 'install Java 17 and Maven (Debian: apt-get install openjdk-17-jre-headless maven)',
  async inDocker() {
    const { GenericContainer, Wait } = await import('testcontainers');
    // Clients are told the address that is outside of Docker, so its port has to be known before the start.
    const port = await freePort();
    const env = {
      KAFKA_NODE_ID: '1',
      KAFKA_PROCESS_ROLES: 'broker,controller',
      KAFKA_CONTROLLER_QUORUM_VOTERS: '1@localhost:9093',
      KAFKA_CONTROLLER_LISTENER_NAMES: 'CONTROLLER',
      KAFKA_LISTENERS: 'PLAINTEXT://:9092,CONTROLLER://:9093',
      KAFKA_ADVERTISED_LISTENERS: `PLAINTEXT://localhost:${port}`,
      KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT',
      KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: '1',
      KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: '1',
      KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: '1',
      KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS: '0',
      KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS: '1000',
      KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS: '500',
      KAFKA_AUTO_CREATE_TOPICS_ENABLE: 'false',
    };
    const container = await new GenericContainer(`apache/kafka:${version}`)
      .withEnvironment(env)
      .withExposedPorts({ container: 9092, host: port })
      .withWaitStrategy(Wait.forLogMessage(/Kafka Server started/))
      .start();
    return { address: { brokers: [`${container.getHost()}:${port}`] }, stop: async () => void (await container.stop()) };
  },
  async here(settings = []) {
    const jars = await mavenJars(`org.apache.kafka:kafka_2.13:${version}`, 'org.apache.logging.log4j:log4j-slf4j-impl:2.25.5');
    const folder = await temporaryFolder('kafka');
    const [port, controllerPort] = [await freePort(), await freePort()];
    const file = join(folder, 'server.properties');
    await writeFile(file, `${configuration(folder, port, controllerPort)}${settings.join('\n')}\n`);
    await writeFile(join(folder, 'log4j2.xml'), logging);
    const java = ['-Xms128m', '-Xmx384m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', `${jars}/*`];
    const cluster = ['format', '-t', '5L6g3nShT-eMCtK--X86sw', '-c', file, '--ignore-formatted'];
    await run('java', [...java, 'kafka.tools.StorageTool', ...cluster], { timeout: 60_000 });
    const log = `-Dlog4j2.configurationFile=${join(folder, 'log4j2.xml')}`;
    const program = await startProgram('java', [log, ...java, 'kafka.Kafka', file], { folder, port });
    return { address: { brokers: [`127.0.0.1:${port}`] }, ...program };
  },
};
