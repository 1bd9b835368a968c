import { ReceiverError } from './errors.ts';

/** The part of Standard Schema v1 (standardschema.dev) that is used here. zod, valibot, arktype and others offer it. */
export interface StandardSchema<Output> {
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: string;
    validate(value: unknown): SchemaResult<Output> | Promise<SchemaResult<Output>>;
    readonly types?: { readonly input: unknown; readonly output: Output } | undefined;
  };
}

type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly { readonly message: string; readonly path?: readonly unknown[] | undefined }[] };

/** The payload, or what else `what` says, as the schema gives it. @throws ReceiverError `invalid-payload`, naming where and what, never the payload */
export async function validate<Output>(schema: StandardSchema<Output>, payload: unknown, what = 'the payload'): Promise<Output> {
  const result = await schema['~standard'].validate(payload);
  if (!result.issues) return result.value;
  const issues = result.issues.slice(0, 5).map(({ message, path }) => {
    const where = (path ?? [])
      .map((step) => String(typeof step === 'object' && step !== null && 'key' in step ? step.key : step))
      .join('.');
    return where ? `${where}: ${message}` : message;
  });
  throw new ReceiverError('invalid-payload', `Expected ${what} to fit its schema: ${issues.join('; ')}`);
}
