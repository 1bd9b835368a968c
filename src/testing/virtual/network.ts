/** The way from one process to one server: each request and its reply can be lost, late, or never happen. */
export interface Calls {
  /** Sends a request that the server answers by `run`. `op` is what it is called in a story. */
  call<T>(op: string, run: () => T | Promise<T>): Promise<T>;
}

/** An error as a network makes it: the outcome of the request is unknown. */
export class NetworkError extends Error {
  readonly code: string = 'ECONNRESET';
}

/** The server's own answer, that it did not do it, and may do it later. Nothing about it is unknown. */
export class RefusedError extends Error {
  readonly $metadata: { readonly httpStatusCode: number } = { httpStatusCode: 503 };
}
