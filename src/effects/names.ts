import { printable, ReceiverError, show } from '../errors.ts';

/**
 * Names in the journal. A step has its own. What the library adds begins with `$`, so that the two never meet:
 * `$/now`; `$trip/hotel`, a step of the saga `trip`; `$trip/hotel/undo`, its compensation; `$trip`, that the saga is being undone.
 */
export const nowName = '$/now';
export const sagaName = (saga: string): string => `$${saga}`;
export const sagaStepName = (saga: string, step: string): string => `$${saga}/${step}`;
export const undoName = (saga: string, step: string): string => `$${saga}/${step}/undo`;

/** Whether an entry stands for a step of the user's code, which is to be asked for again. */
export function isEffect(name: string): boolean {
  return !name.startsWith('$') || (name !== nowName && name.split('/').length === 2);
}

/** A name as the user knows it. */
export const labelOf = (name: string): string => (name.startsWith('$') ? name.slice(1) : name);

const maxName = 200;

/** @throws ReceiverError `invalid-step` */
export function checkName(what: 'step' | 'saga' | 'step of a saga', name: unknown): asserts name is string {
  const fits = typeof name === 'string' && name.trim() !== '' && name === printable(name, maxName) && !name.startsWith('$');
  if (fits && (what === 'step' || !name.includes('/'))) return;
  const slash = what === 'step' ? '' : ', without /';
  throw new ReceiverError(
    'invalid-step',
    `Expected the name of a ${what} to be text of 1 to ${maxName} characters, on one line, not beginning with $${slash}, got ${show(name)}`,
  );
}
