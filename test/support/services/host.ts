import { createServer } from 'node:http';
import { hostVariable, type ServiceName, startHere, stopAll } from './index.ts';

/**
 * Vitest's global set-up: starts each service once for the run, when the first test file asks for it, and stops it at the end. Test files run
 * in processes of their own, and ask over loopback.
 */
export default async function host(): Promise<() => Promise<void>> {
  const server = createServer(async (request, response) => {
    let answer: { address?: unknown; error?: string };
    try {
      answer = { address: (await startHere(request.url!.slice(1) as ServiceName)).address };
    } catch (error) {
      answer = { error: error instanceof Error ? error.message : String(error) };
    }
    response.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  process.env[hostVariable] = `http://127.0.0.1:${port}`;
  return async () => {
    delete process.env[hostVariable];
    await stopAll();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
}
