import { read } from './package.ts';
import { service, variableOf } from './services/index.ts';

/** An example is told where its services are by the variables that it reads. */
const services = { TEST_KAFKA_BROKERS: 'kafka', TEST_POSTGRES_URL: 'postgres' } as const;

export async function exampleVariables(path: string): Promise<Record<string, string>> {
  const variables: Record<string, string> = {};
  for (const [variable, name] of Object.entries(services)) {
    if (read(path).includes(variable)) variables[variable] = process.env[variable] ?? variableOf(name, (await service(name)) as never)[1];
  }
  return variables;
}
